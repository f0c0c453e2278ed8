"""ImageNet and its four variants in CoOp's layout: class folders and `classnames.txt`.

Unlike in CoOp, files are listed in sorted order, so that a seed gives the same few-shot set on
every file system.
"""

from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DatasetBase
from yacs.config import CfgNode

from causalclip.data.annotations import read_names
from causalclip.data.catalogue import IMAGENET, facts_of
from causalclip.data.fewshot import fewshot_split
from causalclip.data.listing import FolderItems, class_folders, image_names, require_root
from causalclip.data.pictures import say_left_out
from causalclip.data.split_set import leave_out_unreadable
from causalclip.data.splits import halves, subsample_classes
from causalclip.files.caches import load_json, store_json

INDEX = "causalclip_files.json"
SEPARATOR = "/"  # no file name can contain it


class FileIndex:
    """The sorted image names of class folders, stored in a file to avoid listing them every time.

    A folder is listed again when its modification time has changed, as it does when a file is
    added, removed or renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, list] = load_json(path) or {}
        self._seen: dict[str, list] = {}

    def names(self, folder: Path) -> list[str]:
        """Return the sorted names of the images in `folder`."""
        key, stamp = str(folder.relative_to(self.path.parent)), folder.stat().st_mtime_ns
        entry = self._known.get(key)
        if entry is None or entry[0] != stamp:
            entry = [stamp, SEPARATOR.join(image_names(folder))]
        self._seen[key] = entry
        return entry[1].split(SEPARATOR) if entry[1] else []

    def save(self) -> None:
        """Store the index if a folder was listed again or has been removed."""
        if self._seen != self._known:
            print(f"Saved the list of files to {store_json(self.path, self._seen)}")


class ImageNet(DatasetBase):
    """ImageNet: trained on `train`, validated and tested on `val`, as CoOp does.

    CoOp's `preprocessed.pkl` holds the same files in the order of one file system and is not read.

    Raises:
        FileNotFoundError: if a folder or `classnames.txt` is missing.
        ValueError: for class folders that differ between the parts, without a name, or empty.
    """

    def __init__(self, cfg: CfgNode) -> None:
        folder = require_root(cfg.DATASET.ROOT, facts_of("ImageNet").folder)
        self.dataset_dir, self.image_dir = str(folder), str(folder / "images")
        names, index, images = read_names(folder), FileIndex(folder / INDEX), folder / "images"
        folders = class_folders(images / "train")
        _require_same(folders, class_folders(images / "val"), images)
        labels = dict(enumerate(folders))
        train, test = (read_folders(images / p, labels, names, index) for p in ("train", "val"))
        index.save()
        train, _ = fewshot_split(self, train, (), cfg, folder / "split_fewshot")
        train, test = subsample_classes(train, test, **halves(cfg))
        (train, test), bad = leave_out_unreadable(cfg, train, test, root=folder)
        self.left_out = say_left_out(bad)
        super().__init__(train_x=train, val=test, test=test)


class ImageNetVariant(DatasetBase):
    """A variant of ImageNet for testing; all its images are both train and test, as in CoOp.

    Raises:
        FileNotFoundError: if a folder or `classnames.txt` is missing.
        ValueError: for a class folder without a name, or empty.
    """

    def __init__(self, cfg: CfgNode) -> None:
        name = type(self).__name__
        facts = facts_of(name)
        folder = require_root(cfg.DATASET.ROOT, facts.folder)
        self.dataset_dir, self.image_dir = str(folder), str(folder / facts.image_dir)
        if cfg.DATASET.NUM_SHOTS != -1:
            print(f"{name} is for testing: DATASET.NUM_SHOTS {cfg.DATASET.NUM_SHOTS} has no effect")
        if cfg.DATASET.SUBSAMPLE_CLASSES != "all":
            print(f"{name} is for testing: DATASET.SUBSAMPLE_CLASSES has no effect")
        names = read_names(folder)
        index = FileIndex(folder / INDEX)
        labels = self.labels(class_folders(folder / facts.image_dir), names)
        items = read_folders(folder / facts.image_dir, *labels, index)
        index.save()
        (items,), bad = leave_out_unreadable(cfg, items, root=folder)
        self.left_out = say_left_out(bad)
        super().__init__(train_x=items, test=items)

    def labels(self, folders: list[str], names: dict[str, str]) -> tuple[dict, dict]:
        """Return label -> folder and folder -> name; labels number the existing folders."""
        return dict(enumerate(folders)), names


class ImageNetV2(ImageNetVariant):
    """ImageNetV2, whose folders are numbered in the order of `classnames.txt`."""

    def labels(self, folders: list[str], names: dict[str, str]) -> tuple[dict, dict]:
        """Return label -> folder and folder -> name for folders 0..K-1.

        Raises:
            ValueError: if there is another folder, or one is missing.
        """
        numbers = [str(i) for i in range(len(names))]
        _require_same(numbers, folders, Path(self.image_dir))
        return dict(enumerate(numbers)), dict(zip(numbers, names.values(), strict=True))


def read_folders(
    folder: Path, labels: dict[int, str], names: dict[str, str], index: FileIndex
) -> FolderItems:
    """Return the images of the class folders below `folder`.

    `labels` is label -> class folder, `names` class folder -> class name.

    Raises:
        ValueError: for a class folder without a name or without images.
    """
    items = FolderItems()
    for label, class_folder in labels.items():
        if class_folder not in names:
            raise ValueError(f"{folder / class_folder} must have a line in classnames.txt")
        files = index.names(folder / class_folder)
        if not files:
            raise ValueError(f"every class must have an image, {folder / class_folder} has none")
        items.add(str(folder / class_folder), files, label, names[class_folder])
    return items


def _require_same(expected: list[str], found: list[str], folder: Path) -> None:
    differing = sorted(set(expected) ^ set(found))
    if differing:
        raise ValueError(
            f"{folder}: labels count class folders, so all must be there, "
            f"{len(differing)} are in one place only: {', '.join(differing[:5])}"
        )


DATASETS = (
    ImageNet,
    ImageNetV2,
    *(
        type(facts.name, (ImageNetVariant,), {"__doc__": f"{facts.name}, as CoOp reads it."})
        for facts in IMAGENET
        if facts.name not in ("ImageNet", "ImageNetV2")  # written above
    ),
)
