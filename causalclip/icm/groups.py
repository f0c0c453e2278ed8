"""Training images that are held out together: source domains, or kinds of intervention [ours]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from causalclip.icm.captions import CaptionedImage
from causalclip.icm.interventions import ImageIntervention, ImageKind, sample_seed

# With a single source domain, kinds of intervention take the part of domains: each group is held
# out in turn. A group changes any picture: not only colours of a grey one.
KIND_GROUPS: tuple[tuple[ImageKind, ...], ...] = (
    ("jitter", "grayscale"),
    ("blur", "posterize"),
    ("invert", "solarize", "equalize"),
)


@dataclass(frozen=True)
class Sample:
    """An image file with its class."""

    path: str
    key: str
    """Its name wherever the data lie; seeds and captions go by it."""
    label: int
    domain: int


@dataclass(frozen=True)
class Group:
    """Training images that are held out together."""

    name: str
    samples: tuple[Sample, ...]
    intervention: ImageIntervention
    held_changed: bool
    """Classify the changed pictures when held out, instead of the pictures as they are."""

    @property
    def paths(self) -> list[str]:
        """The image files (N,)."""
        return [sample.path for sample in self.samples]

    @property
    def labels(self) -> list[int]:
        """The classes (N,)."""
        return [sample.label for sample in self.samples]

    def captioned(self, captions: Iterable[CaptionedImage]) -> list[CaptionedImage]:
        """The captions that are of the group's own images."""
        keys = {sample.key for sample in self.samples}
        return [row for row in captions if row.image in keys]


def grouped(
    samples: Sequence[Sample],
    *,
    domain_names: Sequence[str],
    seed: int,
    intervention: ImageIntervention | None = None,
) -> list[Group]:
    """One group a source domain, or with a single one a group of kinds of intervention.

    Args:
        samples: the training images.
        domain_names: the name of domain 0, 1, ...; one without a name is called by its number.
        seed: deals a single domain's images out to the kinds.
        intervention: what is done to images; all kinds at their default strengths if None.

    Raises:
        ValueError: a single domain and a single kind: nothing can be held out.
    """
    intervention = intervention or ImageIntervention()
    if len({sample.domain for sample in samples}) > 1:
        return by_domain(samples, domain_names, intervention)
    return by_kind(samples, seed, intervention)


def by_domain(
    samples: Sequence[Sample], names: Sequence[str], intervention: ImageIntervention
) -> list[Group]:
    """A group for each domain, in the order of their numbers; held out as the pictures are."""
    domains: dict[int, list[Sample]] = {}
    for sample in samples:
        domains.setdefault(sample.domain, []).append(sample)
    return [
        Group(
            names[number] if number < len(names) else f"domain {number}",
            tuple(part),
            intervention,
            held_changed=False,
        )
        for number, part in sorted(domains.items())
    ]


def by_kind(samples: Sequence[Sample], seed: int, intervention: ImageIntervention) -> list[Group]:
    """A group for each of `kind_groups`, with a share of the images; held out as changed.

    Raises:
        ValueError: a single kind of intervention.
    """
    kinds_held = kind_groups(intervention.kinds)
    keyed = {sample.key: sample for sample in samples}
    # Dealt out in the order of a hash: parts of one size, whatever the order of the list.
    dealt = sorted(keyed, key=lambda key: sample_seed(key, seed))
    n = len(kinds_held)
    parts = [tuple(keyed[key] for key in dealt[i::n]) for i in range(n)]
    return [
        Group("+".join(kinds), part, replace(intervention, kinds=kinds), held_changed=True)
        for kinds, part in zip(kinds_held, parts, strict=True)
        if part
    ]


def kind_groups(kinds: Sequence[ImageKind]) -> list[tuple[ImageKind, ...]]:
    """What `KIND_GROUPS` keeps of these kinds; if that is one group alone, each kind by itself.

    Raises:
        ValueError: a single kind.
    """
    wanted = frozenset[ImageKind](kinds)
    chosen = [tuple[ImageKind, ...](filter(wanted.__contains__, group)) for group in KIND_GROUPS]
    kept = [group for group in chosen if group]
    if len(kept) > 1:
        return kept
    if len(kept[0]) < 2:
        raise ValueError(
            "a single source domain needs two kinds of intervention or more, to hold one out: "
            f"got {', '.join(kinds)}"
        )
    return [(kind,) for kind in kept[0]]
