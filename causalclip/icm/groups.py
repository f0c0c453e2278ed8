"""Groups of training images to hold out together, by domain, intervention, part or class [ours]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from causalclip.icm.interventions import ImageIntervention, ImageKind
from causalclip.seeding import sample_seed

# With a single source domain, groups of kinds of intervention are held out in turn. Each group
# can change any image, even a grey one.
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
    """Path of the image below the data root, which seeds and captions use."""
    label: int
    domain: int


@dataclass(frozen=True)
class Group:
    """Training images that are held out together."""

    name: str
    samples: tuple[Sample, ...]
    intervention: ImageIntervention
    held_changed: bool
    """When held out, classify the changed images in place of the original images."""

    @property
    def paths(self) -> list[str]:
        """The image files (N,)."""
        return [sample.path for sample in self.samples]


def grouped(
    samples: Sequence[Sample],
    *,
    domain_names: Sequence[str],
    seed: int,
    intervention: ImageIntervention,
) -> list[Group]:
    """Make one group per source domain, or per group of kinds of intervention for a single domain.

    `domain_names` are the names of domain 0, 1, ...; a domain without a name is named by its
    number. The images of a single domain are divided among the kinds at random, by `seed`.

    Raises:
        ValueError: a single domain and a single kind: nothing can be held out.
    """
    numbers = sorted({sample.domain for sample in samples})
    if len(numbers) == 1:
        return _by_kind(samples, seed, intervention)
    return [
        Group(
            domain_names[number] if number < len(domain_names) else f"domain {number}",
            tuple(sample for sample in samples if sample.domain == number),
            intervention,
            held_changed=False,
        )
        for number in numbers
    ]


def image_parts(samples: Sequence[Sample], *, seed: int) -> list[list[int]]:
    """Split N samples into four parts with equal shares of each class; return their rows.

    With fewer than four samples there are fewer parts.
    """

    def key(row: int) -> tuple[int, int]:
        return samples[row].label, sample_seed(samples[row].key, seed)

    order = sorted(range(len(samples)), key=key)
    return [order[part::4] for part in range(min(4, len(order)))]


def class_parts(samples: Sequence[Sample], n: int) -> list[list[int]]:
    """Return the rows of each of `n` groups of classes; a group has every `n`-th class."""
    labels = sorted({sample.label for sample in samples})
    groups = [set(labels[first::n]) for first in range(n)]
    return [[i for i, s in enumerate(samples) if s.label in group] for group in groups]


def _by_kind(samples: Sequence[Sample], seed: int, intervention: ImageIntervention) -> list[Group]:
    kinds_held = kind_groups(intervention.kinds)
    keyed = {sample.key: sample for sample in samples}
    # Sorted by a hash, so that the parts have equal sizes and the order of the list has no effect.
    order = sorted(keyed, key=lambda key: sample_seed(key, seed))
    parts = [order[i :: len(kinds_held)] for i in range(len(kinds_held))]
    return [
        Group(
            "+".join(kinds),
            tuple(keyed[key] for key in part),
            replace(intervention, kinds=kinds),
            held_changed=True,
        )
        for kinds, part in zip(kinds_held, parts, strict=True)
        if part
    ]


def kind_groups(kinds: Sequence[ImageKind]) -> list[tuple[ImageKind, ...]]:
    """Return `KIND_GROUPS` without kinds outside `kinds`; if one group is left, its single kinds.

    Raises:
        ValueError: a single kind.
    """
    parts: list[list[ImageKind]] = [[k for k in group if k in kinds] for group in KIND_GROUPS]
    groups: list[tuple[ImageKind, ...]] = [tuple(part) for part in parts if part]
    if len(groups) > 1:
        return groups
    if len(groups[0]) < 2:
        raise ValueError(
            "a single source domain needs two kinds of intervention or more, to hold one out: "
            f"got {', '.join(kinds)}"
        )
    return [(kind,) for kind in groups[0]]
