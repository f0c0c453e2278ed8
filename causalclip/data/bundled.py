"""Data sets that are drawn once in place of a download, and their parts and domains.

The part of a picture never changes and is the same in every domain, so that no domain shows a
held-out picture during training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from dassl.data.datasets import DatasetBase, Datum
from yacs.config import CfgNode

from causalclip.data.fewshot import fewshot_split
from causalclip.data.listing import check_domains
from causalclip.data.splits import Items, halves, subsample_classes
from causalclip.files.atomic import explained_full_disk, unfinished
from causalclip.files.caches import NotJSONError, read_json

MARKER = "causalclip.json"

# Shares of the parts. Without target domains, spare and heldout are the test set. With them, train
# and spare of the sources train, val of the sources validates, and no source shows heldout.
PART_SHARES = {"train": 0.5, "val": 0.1, "spare": 0.2, "heldout": 0.2}


def assign_parts(labels: Sequence[int] | np.ndarray) -> list[str]:
    """Return the part of each picture, drawn class by class and independent of cfg.SEED.

    The result has one name from `PART_SHARES` for each of the `labels` (N,), in their order.
    """
    labels = np.asarray(labels)
    parts = np.empty(len(labels), dtype=object)
    edges = np.cumsum(list(PART_SHARES.values()))[:-1]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shuffled = np.random.default_rng((0, int(label))).permutation(members)
        cuts = np.rint(edges * len(members)).astype(int)
        for part, chosen in zip(PART_SHARES, np.split(shuffled, cuts), strict=True):
            parts[chosen] = part
    return parts.tolist()


def build_once(
    root: str | os.PathLike, name: str, write: Callable[[Path], None], *, edition: int
) -> Path:
    """Return the folder `root/name`; if it does not exist, draw it with `write(folder)`.

    Raises:
        FileExistsError: for an existing folder that causalclip did not draw in this edition.
        OSError: if the folder cannot be written.
    """
    folder = Path(os.path.abspath(os.path.expanduser(root)), name)
    if not folder.exists():

        def draw(part: Path) -> None:
            write(part)
            (part / MARKER).write_text(json.dumps({"edition": edition}), encoding="utf-8")

        build_folder(folder, draw, marker=MARKER, action="draw")
    try:
        marker = read_json(folder / MARKER)
    except (FileNotFoundError, NotJSONError):
        marker = None
    stored = marker.get("edition") if isinstance(marker, dict) else None
    if stored != edition:
        raise FileExistsError(
            f"{folder} must be a {name} folder of edition {edition}, "
            f"got edition {stored}; remove it to have it drawn again"
        )
    return folder


def build_folder(folder: Path, write: Callable[[Path], None], *, marker: str, action: str) -> None:
    """Have `write` fill a new folder that appears whole or not at all; the first process wins.

    `marker` is a file that `write` creates, `action` the verb in the message for a full disk.

    Raises:
        OSError: if the folder cannot be written, or a folder without the marker is in its place.
    """
    with explained_full_disk(f"{action} {folder}; nothing of it stays"), unfinished(folder) as part:
        part.mkdir()
        write(part)
        try:
            os.rename(part, folder)
        except OSError:
            if not (folder / marker).is_file():  # else another process has built it first
                raise


# Choosing parts and domains


class BundledDataset(DatasetBase):
    """Base class of the bundled data sets, with or without domains that are left out for testing.

    Subclasses set `dataset_dir` and `domains` and implement `_items`. Without
    `DATASET.TARGET_DOMAINS` they are ordinary data sets (base-to-new, few-shot). With it, train and
    val come from the sources and `test` is the whole target. `heldout_test` has the paths of the
    20 % of it that no source domain shows in another look. Source domains have the first numbers.

    Raises:
        ValueError: for an unknown domain, listing the known ones, a domain named twice, a target
            among the sources, or sources without targets or the reverse.
    """

    dataset_dir: str
    domains: tuple[str, ...]

    def _setup(self, cfg: CfgNode, folder: Path) -> None:
        self.dataset_dir = str(folder)
        source, target = list(cfg.DATASET.SOURCE_DOMAINS), list(cfg.DATASET.TARGET_DOMAINS)
        if source or target:
            check_domains(source, target, self.domains, where=str(folder))
        cut = self._left_out(cfg, folder, source, target) if target else self._pooled(cfg, folder)
        train, val, test = subsample_classes(*cut, **halves(cfg))
        super().__init__(train_x=train, val=val, test=test)

    def _items(self, folder: Path, domain: str, part: str, *, number: int, test: bool) -> Items:
        """Return the pictures of a part of domain `number`; `test`: whether they are tested."""
        raise NotImplementedError

    def _part(
        self,
        folder: Path,
        domains: Sequence[str],
        parts: Sequence[str],
        *,
        test: bool = False,
        first: int = 0,
    ) -> Items:
        """Return the pictures of these parts, domain by domain; domain numbers start at `first`."""
        return [
            item
            for number, domain in enumerate(domains, start=first)
            for part in parts
            for item in self._items(folder, domain, part, number=number, test=test)
        ]

    def _whole(self, folder: Path) -> tuple[Items, Items, Items]:
        """Return train, val and test with no domain left out."""
        return (
            self._part(folder, self.domains, ["train"]),
            self._part(folder, self.domains, ["val"]),
            self._part(folder, self.domains, ["spare", "heldout"], test=True),
        )

    def _pooled(self, cfg: CfgNode, folder: Path) -> tuple[Items, Items, Items]:
        self.heldout_test = frozenset()
        train, val, test = self._whole(folder)
        return *fewshot_split(self, train, val, cfg, folder / "split_fewshot"), test

    def _left_out(
        self, cfg: CfgNode, folder: Path, source: Sequence[str], target: Sequence[str]
    ) -> tuple[Items, Items, Items]:
        train: list[Datum] = []
        val: list[Datum] = []
        for number, domain in enumerate(source):
            train_part = self._part(folder, [domain], ["train", "spare"], first=number)
            val_part = self._part(folder, [domain], ["val"], first=number)
            cache = folder / domain / "split_fewshot"  # shots of each class in each domain
            drawn = fewshot_split(self, train_part, val_part, cfg, cache)
            for items, few in zip((train, val), drawn, strict=True):
                items.extend(few)
        held = self._part(folder, target, ["heldout"], test=True, first=len(source))
        self.heldout_test = frozenset(item.impath for item in held)
        test = self._part(folder, target, list(PART_SHARES), test=True, first=len(source))
        return train, val, test
