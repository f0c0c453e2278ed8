"""Data sets with domains from folders, by DomainBed's protocol, under names Dassl does not use.

The images are `<root>/<set>/<domain>/<class>/*`. Sources are split 80/20 into training and
validation. All target images are tested; the paths of their held-out 20 % are in `heldout_test`, so
that the accuracy on both can be reported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from causalclip.data.catalogue import DOMAINBED, Facts
from causalclip.data.listing import (
    ListedDatum,
    check_domains,
    class_names,
    class_places,
    relative,
    require_root,
    subfolders,
)
from causalclip.data.pictures import (
    PICTURE_SUFFIXES,
    PUBLISHED_SUFFIXES,
    SHOWN,
    Found,
    find_pictures,
    reason_for_none,
)
from causalclip.data.split_set import SplitSet
from causalclip.data.splits import Items, count_base, halves
from causalclip.files.caches import cache_folder

HOLDOUT = 0.2


class DomainSet(SplitSet):
    """Images of several domains; the settings name sources to train on and targets to test on.

    Labels number the classes of all domains in alphabetical order, for any choice of domains. For
    open classes, train with `DATASET.SUBSAMPLE_CLASSES base` and test with `all`: base classes come
    first in both. `HOLDOUT_WITHIN: halves` holds out 20 % of the base and of the open classes of a
    domain separately, as the published code for open classes does.

    Raises:
        ValueError: for an unknown HOLDOUT_WITHIN, a domain that does not exist, a target among the
            sources, or a class without training images.
        FileNotFoundError: if the set is not below `DATASET.ROOT`.
    """

    facts: Facts | None = None
    """Facts of a published set; its class names replace folder names 0, 1, ... (Dassl's VLCS)."""
    suffixes = PUBLISHED_SUFFIXES

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.folder_in(cfg.DATASET.ROOT, cfg.DATASET.PATH)
        self.dataset_dir = str(folder)
        self.domains = subfolders(folder)
        sources, targets = list(cfg.DATASET.SOURCE_DOMAINS), list(cfg.DATASET.TARGET_DOMAINS)
        check_domains(sources, targets, self.domains, where=str(folder))
        classes = class_names(folder, self.domains)
        names = self.facts.class_names if self.facts else ()
        if len(names) != len(classes) or not all(map(str.isdigit, classes)):
            names = classes
        trial, parts = cfg.DATASET.TRIAL_SEED, _parts_of(cfg, len(classes))
        train, val, test, heldout = [], [], [], []
        left_out: dict[str, str] = {}
        for number, domain in enumerate([*sources, *targets]):
            images, others = self._list(folder, domain, classes, names, number)
            left_out |= others
            kept, held = hold_out(images, parts, trial, self.domains.index(domain))
            if number < len(sources):
                train += kept
                val += held
            else:
                test += kept + held
                heldout += held
        self.heldout_test = frozenset(item.impath for item in heldout)
        _require_images(train, names, left_out, where=str(folder))
        # Not in the data set's own folder, where it would be read as a domain.
        apart = f"-base_{parts.count('base')}" if "base" in parts else ""
        fewshot_dir = cache_folder(folder) / f"{'+'.join(sources)}-trial_{trial}{apart}"
        self.build(cfg, train, val, test, root=folder, fewshot_dir=fewshot_dir, left_out=left_out)

    @classmethod
    def folder_in(cls, root: str, path: str) -> Path:
        """Return the data set's folder below `root`; for your own, `path`, also an absolute one.

        Raises:
            FileNotFoundError: if it is missing; the message states which part is wrong.
        """
        if cls.facts is None:
            return require_root(root, path)
        found = cls.facts.find(Path(os.path.abspath(os.path.expanduser(root))))
        return found or require_root(root, cls.facts.folder)

    def _list(
        self, folder: Path, domain: str, classes: Sequence[str], names: Sequence[str], number: int
    ) -> tuple[list[ListedDatum], dict[str, str]]:
        """Return the images of a domain, class by class, and unused files, path -> reason."""
        images, left_out = [], {}
        for label, (class_folder, name) in enumerate(zip(classes, names, strict=True)):
            for place in class_places(folder / domain, class_folder):
                found, below = find_pictures(place, self.suffixes), relative(str(place), folder)
                left_out |= {f"{below}/{file}": why for file, why in found.left_out.items()}
                images += [
                    ListedDatum(str(place), file, label, domain=number, classname=name)
                    for file in found.pictures
                ]
        return images, left_out


def hold_out(
    images: Sequence[ListedDatum], parts: Sequence[str], trial: int, environment: int
) -> tuple[list[ListedDatum], list[ListedDatum]]:
    """Return the images of a domain that are kept and held out; `parts` has the part of a label."""
    kept, held = [], []
    for part in dict.fromkeys(parts):
        items = [item for item in images if parts[item.label] == part]
        out, stay = split_environment(len(items), trial, environment, part=part)
        kept += [items[i] for i in stay]
        held += [items[i] for i in out]
    return kept, held


def _parts_of(cfg: CfgNode, n_classes: int) -> list[str]:
    """Return the part of a domain in which each class is split: "" (all), "base" or "open"."""
    within = cfg.DATASET.HOLDOUT_WITHIN
    if within not in ("domain", "halves"):
        raise ValueError(f"DATASET.HOLDOUT_WITHIN must be 'domain' or 'halves', got {within!r}")
    if within == "domain":
        return [""] * n_classes
    n_base = count_base(n_classes, halves(cfg)["rounding"])
    return ["base"] * n_base + ["open"] * (n_classes - n_base)


def split_environment(
    count: int, trial: int, environment: int, *, part: str = ""
) -> tuple[list[int], list[int]]:
    """Return the indices held out of, and kept in, an environment of `count` images.

    DomainBed's draw: a permutation seeded by the MD5 of "(trial, environment)", cut at the share
    `HOLDOUT`; `environment` counts the sorted domain folders. `part` is a third entry of the seed:
    "base" or "open" if these are split separately, as in CLIP-ICM's and CLIPood's code.
    """
    facts = (trial, environment, part) if part else (trial, environment)
    digest = hashlib.md5(str(facts).encode()).hexdigest()
    order = np.arange(count)
    np.random.RandomState(int(digest, 16) % 2**31).shuffle(order)
    cut = int(count * HOLDOUT)
    return order[:cut].tolist(), order[cut:].tolist()


def _require_images(
    train: Items, names: Sequence[str], left_out: dict[str, str], *, where: str
) -> None:
    trained = {item.label for item in train}
    without = [name for label, name in enumerate(names) if label not in trained]
    if without:
        why = f"; {reason_for_none(Found([], left_out))}" if left_out else ""
        raise ValueError(
            f"every class of {where} must have a training image in the source domains, "
            f"{len(without)} have none: {', '.join(without[:SHOWN])}{why}"
        )


def _published(facts: Facts) -> type[DomainSet]:
    about = f"{facts.name.removeprefix('DomainBed')} in DomainBed's protocol: {facts.page}."
    return type(facts.name, (DomainSet,), {"__doc__": about, "facts": facts})


class DomainFolder(DomainSet):
    """Your own `<DATASET.ROOT>/<DATASET.PATH>/<domain>/<class>/*`."""

    suffixes = PICTURE_SUFFIXES


DATASETS = (*map(_published, DOMAINBED), DomainFolder)
