"""Your own images without Python: class folders (ImageFolder) or a split file (SplitJSON).

Choose one in a short YAML file. `DATASET.PATH` is the folder, below `DATASET.ROOT` or absolute.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dassl.data.datasets import Datum
from yacs.config import CfgNode

from causalclip.clip.texts import readable
from causalclip.data.listing import ListedDatum, relative, require_root, subfolders
from causalclip.data.pictures import SHOWN, find_pictures, reason_for_none
from causalclip.data.split_set import SplitSet
from causalclip.data.splits import (
    PART_OF,
    PARTS,
    Items,
    Parts,
    cut_classes,
    read_split,
    write_split,
)
from causalclip.files.caches import cache_folder, first_existing

OWN_SPLIT = "split_causalclip.json"


class OwnSet(SplitSet):
    """Your own data set: two classes with one name, or an image in two parts, are an error."""

    def __init__(self, cfg: CfgNode) -> None:
        folder, parts = self.read(cfg.DATASET)
        self.dataset_dir = str(folder)
        require_distinct_names(parts[0], where=str(folder))
        require_disjoint(*parts, where=str(folder))
        # Few-shot sets are stored in the cache: in the folder itself they would look like a class.
        fewshot_dir = cache_folder(folder) / type(self).__name__
        left_out = self.unused(folder, parts)
        self.build(cfg, *parts, root=folder, fewshot_dir=fewshot_dir, left_out=left_out)

    def read(self, settings: CfgNode) -> tuple[Path, Parts]:
        """Return the set's folder, and train, val and test; val may be empty.

        Raises:
            FileNotFoundError: if a folder, file or image is missing.
            ValueError: for content that does not fit the description of the class.
        """
        raise NotImplementedError

    def unused(self, folder: Path, parts: Parts) -> Mapping[str, str]:
        """Return the existing files that are in no part, path -> reason."""
        return {}


class ImageFolder(OwnSet):
    """Class folders, split 50/20/30; or class folders in `train/`, `test/` and perhaps `val/`.

    Pictures may be in sub-folders of a class. The parts may have other names of `PART_OF`, such as
    `Training/` or `valid/`.

    The split of plain class folders depends on the files' names alone and is written to
    `split_causalclip.json`, so that images you add later do not change it. They are not used until
    you remove the file. Without `val/`, a fifth of each class of `train/` is for validation.
    """

    def read(self, settings: CfgNode) -> tuple[Path, Parts]:
        """Read the parts in the layout of the folder; refuse a class with too few images."""
        folder = require_root(settings.ROOT, settings.PATH)
        if places := part_folders(folder):
            return folder, _read_part_folders(folder, places)
        path = first_existing(folder / OWN_SPLIT)
        if path is None:
            path = write_split(*_split_by_name(folder), folder / OWN_SPLIT, folder)
        return folder, read_split(path, folder)

    def unused(self, folder: Path, parts: Parts) -> Mapping[str, str]:
        """Return the other files below the folder, path -> reason."""
        used = {relative(item.impath, folder) for items in parts for item in items}
        found = find_pictures(folder)
        reason = f"in no class folder, or added after {OWN_SPLIT}"
        others = {path: reason for path in found.pictures if path not in used}
        return {p: why for p, why in {**found.left_out, **others}.items() if p != OWN_SPLIT}


def part_folders(folder: Path) -> dict[str, Path]:
    """Return part -> folder, if `folder` has `train/`, `test/` and perhaps `val/`, else {}.

    Raises:
        ValueError: for `train/` and `val/` without `test/`, for only part folders without `train/`
            or `test/`, or for two folders of one part.
    """
    names = subfolders(folder)
    places = {name: PART_OF[name.lower()] for name in names if name.lower() in PART_OF}
    parts = set(places.values())
    if not {"train", "test"} <= parts:
        if {"train", "val"} <= parts or (places and len(places) == len(names)):
            raise ValueError(
                f"{folder} must hold train/ and test/ (and perhaps val/), or one folder a class; "
                f"it holds {', '.join(places)}"
            )
        return {}
    if len(parts) < len(places):
        raise ValueError(f"{folder} must hold one folder a part, it holds {', '.join(places)}")
    return {part: folder / name for name, part in places.items()}


class SplitJSON(OwnSet):
    """CoOp's split file `DATASET.SPLIT` and the images below `DATASET.PATH` that it names."""

    def read(self, settings: CfgNode) -> tuple[Path, Parts]:
        """Read the split file; refuse a malformed row."""
        folder = require_root(settings.ROOT, settings.PATH)
        path = folder / settings.SPLIT
        if not path.is_file():
            raise FileNotFoundError(f"DATASET.SPLIT must be a file in {folder}, got {path}")
        return folder, read_split(path, folder)


def require_distinct_names(items: Items, *, where: str) -> None:
    """Require a different class name for each label, as prompts cannot distinguish equal ones.

    Raises:
        ValueError: for two labels with the same name, as it is written in prompts.
    """
    label_of: dict[str, int] = {}
    for item in items:
        name = " ".join(readable(item.classname).split())  # as it is written in prompts
        if label_of.setdefault(name, item.label) != item.label:
            raise ValueError(
                f"{where}: every class must have a name of its own, labels {label_of[name]} and "
                f"{item.label} are both {name!r}"
            )


def require_disjoint(*parts: Items, where: str) -> None:
    """Require that no image is listed twice, in one part or in two.

    Raises:
        ValueError: for an image that is listed twice; names it and both parts.
    """
    part_of: dict[str, str] = {}
    real = functools.cache(os.path.realpath)  # a linked folder has several paths
    for part, items in zip(PARTS, parts, strict=True):
        for item in items:
            folder, file = os.path.split(item.impath)
            path = os.path.join(real(folder), file)
            if path in part_of:
                raise ValueError(
                    f"{where}: an image must be listed once, {item.impath!a} is in "
                    f"{part_of[path]} and in {part}"
                )
            part_of[path] = part


def order_by_name(items: Items, root: Path) -> Items:
    """Return items in an order that depends only on their paths below `root`."""

    def key(item: Datum) -> str:
        path = Path(item.impath).relative_to(root).as_posix()
        return hashlib.sha256(os.fsencode(path)).hexdigest()

    return sorted(items, key=key)


def class_items(place: Path, classes: Sequence[str]) -> list[Items]:
    """Return the images of each class folder in `place`; labels are positions in `classes`."""
    found = (find_pictures(place / c).pictures if (place / c).is_dir() else [] for c in classes)
    return [
        [ListedDatum(str(place / name), file, label, classname=name) for file in files]
        for label, (name, files) in enumerate(zip(classes, found, strict=True))
    ]


def _require_images(by_class: Sequence[Items], classes: Sequence[str], place: Path) -> None:
    without = [name for name, items in zip(classes, by_class, strict=True) if not items]
    if without or not classes:
        shown = ", ".join(without[:SHOWN]) or "no class folder at all"
        why = reason_for_none(find_pictures(place / without[0] if without else place))
        raise ValueError(f"every class in {place} must have an image, none in: {shown}; {why}")


def _split_by_name(folder: Path) -> Parts:
    classes = subfolders(folder)
    by_class = class_items(folder, classes)
    _require_images(by_class, classes, folder)
    ordered = (order_by_name(items, folder) for items in by_class)
    return cut_classes(zip(classes, ordered, strict=True))


def _read_part_folders(folder: Path, places: Mapping[str, Path]) -> Parts:
    classes = subfolders(places["train"])
    train = class_items(places["train"], classes)
    _require_images(train, classes, places["train"])
    if "val" in places:
        val = _evaluated(places["val"], classes)
    else:
        print(f"{folder} has no val/: a fifth of each class of train/ validates")
        train = [order_by_name(items, folder) for items in train]
        fifths = [round(len(items) / 5) for items in train]
        val = [items[:n] for items, n in zip(train, fifths, strict=True)]
        train = [items[n:] for items, n in zip(train, fifths, strict=True)]
    parts = (train, val, _evaluated(places["test"], classes))
    train, val, test = ([item for items in part for item in items] for part in parts)
    return train, val, test


def _evaluated(place: Path, classes: Sequence[str]) -> list[Items]:
    unknown = sorted(set(subfolders(place)) - set(classes))
    if unknown:
        raise ValueError(f"{place} must hold classes of train/ only, got {', '.join(unknown[:5])}")
    return class_items(place, classes)


DATASETS = (ImageFolder, SplitJSON)
