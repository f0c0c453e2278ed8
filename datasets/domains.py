"""Data sets with domains from folders, by DomainBed's protocol, under names Dassl does not use.

`<root>/<set>/<domain>/<class>/*`: sources are split 80/20 into training and validation; the target
is tested whole, and its own 20 % are known as `heldout_test`, so both can be reported.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from causalclip.data.catalogue import DOMAINBED, Facts
from causalclip.data.domain_folders import check_domains, class_names, class_places
from causalclip.data.listing import ListedDatum, image_names, require_root, subfolders
from causalclip.data.split_set import SplitSet
from causalclip.data.splits import Items, count_base, halves
from causalclip.files.caches import cache_folder

HOLDOUT = 0.2


class DomainSet(SplitSet):
    """Images of several domains; sources to train on and targets to test on come from the settings.

    Labels count the classes of all domains in alphabetical order, whichever domains are chosen. For
    open classes, train with `DATASET.SUBSAMPLE_CLASSES base` and test with `all`: base classes come
    first in both. `HOLDOUT_WITHIN: halves` splits base and open classes of a domain apart, as the
    published code for open classes does, in place of the domain as a whole.

    Raises:
        ValueError: for another HOLDOUT_WITHIN, a domain that does not exist, a target among the
            sources, or a class without training images.
        FileNotFoundError: if the set is not below `DATASET.ROOT`.
    """

    config_defaults = {
        "PATH": "",
        "TRIAL_SEED": 0,
        "HOLDOUT_WITHIN": "domain",
        **SplitSet.config_defaults,
    }
    folders: tuple[str, ...] = ()
    """Where the set may be below the root, DomainBed's layout first."""
    class_names: tuple[str, ...] = ()
    """The names to use where the class folders are called 0, 1, ... as in Dassl's VLCS."""

    def __init__(self, cfg: CfgNode) -> None:
        folder = self._find(cfg.DATASET)
        self.dataset_dir = str(folder)
        self.domains = subfolders(folder)
        sources, targets = list(cfg.DATASET.SOURCE_DOMAINS), list(cfg.DATASET.TARGET_DOMAINS)
        check_domains(sources, targets, self.domains, where=str(folder))
        classes = class_names(folder, self.domains)
        trial, parts = cfg.DATASET.TRIAL_SEED, _parts_of(cfg, len(classes))
        read = _Reader(folder, classes, self._readable(classes), trial, parts)
        train, val, test = self._parts(read, sources, targets)
        _require_images(train, read.names, where=str(folder))
        # Not in the set's own folder, where DomainBed and we would take it for a domain.
        apart = f"-base_{parts.count('base')}" if "base" in parts else ""
        drawn_from = f"{'+'.join(sources)}-trial_{trial}{apart}"
        fewshot_dir = cache_folder(folder) / drawn_from
        self.build(cfg, train, val, test, root=folder, fewshot_dir=fewshot_dir)

    def _find(self, settings: CfgNode) -> Path:
        if not self.folders:
            return require_root(settings.ROOT, settings.PATH)
        root = Path(os.path.abspath(os.path.expanduser(settings.ROOT)))
        present = [root / folder for folder in self.folders if (root / folder).is_dir()]
        return present[0] if present else require_root(settings.ROOT, self.folders[0])

    def _readable(self, classes: Sequence[str]) -> list[str]:
        if len(classes) == len(self.class_names) and all(name.isdigit() for name in classes):
            return list(self.class_names)
        return list(classes)

    def _parts(
        self, read: _Reader, sources: Sequence[str], targets: Sequence[str]
    ) -> tuple[Items, Items, Items]:
        train, val, test, heldout = [], [], [], set()
        for number, domain in enumerate(sources):
            kept, out = read(domain, self.domains.index(domain), number)
            train += kept
            val += out
        for number, domain in enumerate(targets, start=len(sources)):
            kept, out = read(domain, self.domains.index(domain), number)
            test += kept + out
            heldout.update(item.impath for item in out)
        self.heldout_test = frozenset(heldout)
        return train, val, test


class _Reader:
    """Lists a domain and splits it; called with the domain, its place among all, and its label."""

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        names: Sequence[str],
        trial: int,
        parts: Sequence[str],
    ) -> None:
        self.folder, self.classes, self.names = folder, classes, names
        self.trial, self.parts = trial, parts

    def __call__(self, domain: str, environment: int, number: int) -> tuple[Items, Items]:
        images, kept, held = list(self._images(domain, number)), [], []
        for part in dict.fromkeys(self.parts):
            items = [item for item in images if self.parts[item.label] == part]
            out, stay = split_environment(len(items), self.trial, environment, part=part)
            kept += [items[i] for i in stay]
            held += [items[i] for i in out]
        return kept, held

    def _images(self, domain: str, number: int) -> Iterator[ListedDatum]:
        for label, (folder, name) in enumerate(zip(self.classes, self.names, strict=True)):
            for place in class_places(self.folder / domain, folder):
                for file in image_names(place):
                    yield ListedDatum(str(place), file, label, domain=number, classname=name)


def _parts_of(cfg: CfgNode, n_classes: int) -> list[str]:
    """What each class is split with: all of a domain (""), or its own half ("base", "open")."""
    within = cfg.DATASET.HOLDOUT_WITHIN
    if within not in ("domain", "halves"):
        raise ValueError(f"DATASET.HOLDOUT_WITHIN must be 'domain' or 'halves', got {within!r}")
    if within == "domain":
        return [""] * n_classes
    n_base = count_base(n_classes, halves(cfg)["rounding"])
    return ["base"] * n_base + ["open"] * (n_classes - n_base)


def split_environment(
    count: int, trial: int, environment: int, *, holdout: float = HOLDOUT, part: str = ""
) -> tuple[list[int], list[int]]:
    """Return the indices held out of, and kept in, an environment of `count` images.

    DomainBed's draw: a permutation seeded by the MD5 of "(trial, environment)", cut at the share
    `holdout`; `environment` counts the sorted domain folders. `part` is a third thing in the seed:
    "base" and "open" where CLIP-ICM's and CLIPood's code splits the two apart.
    """
    facts = (trial, environment, part) if part else (trial, environment)
    digest = hashlib.md5(str(facts).encode()).hexdigest()
    order = np.arange(count)
    np.random.RandomState(int(digest, 16) % 2**31).shuffle(order)
    cut = int(count * holdout)
    return order[:cut].tolist(), order[cut:].tolist()


def _require_images(train: Items, names: Sequence[str], *, where: str) -> None:
    trained = {item.label for item in train}
    without = [name for label, name in enumerate(names) if label not in trained]
    if without:
        raise ValueError(
            f"every class of {where} must have a training image in the source domains, "
            f"{len(without)} have none: {', '.join(without[:5])}"
        )


def _published(facts: Facts) -> type[DomainSet]:
    attributes = {
        "__doc__": f"{facts.name.removeprefix('DomainBed')} in DomainBed's protocol: {facts.page}.",
        "folders": facts.folders,
        "class_names": facts.class_names,
    }
    return type(facts.name, (DomainSet,), attributes)


class DomainFolder(DomainSet):
    """Your own `<DATASET.ROOT>/<DATASET.PATH>/<domain>/<class>/*`."""


DATASETS = (*map(_published, DOMAINBED), DomainFolder)
