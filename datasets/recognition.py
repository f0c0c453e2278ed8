"""CoOp's recognition sets other than ImageNet: one reader, and a row a set where facts differ.

With the published split file in place all are read alike. Without it a split is made from the set's
own annotations as CoOp makes it, once, and written next to the data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from random import shuffle

from yacs.config import CfgNode

from causalclip.data import annotations
from causalclip.data.annotations import ImageRow
from causalclip.data.catalogue import RECOGNITION, Facts, facts_of
from causalclip.data.listing import listed, require_files, require_root
from causalclip.data.split_set import SplitSet
from causalclip.data.splits import Items, create_split, cut, read_split, split_trainval, write_split
from causalclip.files.caches import first_existing

Parts = tuple[Items, Items, Items]
Create = Callable[[Path, Path], Parts]
"""From the set's folder and its image folder to train, val and test."""


class RecognitionSet(SplitSet):
    """One of CoOp's sets: a split file, few-shot sets drawn from it, and base and new classes.

    Raises:
        FileNotFoundError: if the folder, an image, or both split file and annotations are missing.
        ValueError: for a split file or annotations that are not as published.
    """

    create: Create

    def __init__(self, cfg: CfgNode) -> None:
        facts = facts_of(type(self).__name__)
        folder = require_root(cfg.DATASET.ROOT, facts.folder)
        self.dataset_dir, self.image_dir = str(folder), str(folder / facts.image_dir)
        train, val, test = self._read_parts(folder, facts.split_file)
        self.build(cfg, train, val, test, root=folder, fewshot_dir=folder / "split_fewshot")

    def _read_parts(self, folder: Path, split_file: str) -> Parts:
        if not split_file:  # the owners' own three lists
            return type(self).create(folder, Path(self.image_dir))
        path = first_existing(folder / split_file)
        if path is None:
            path = self._make_split(folder, split_file)
        return read_split(path, self.image_dir)

    def _make_split(self, folder: Path, split_file: str) -> Path:
        name = type(self).__name__
        print(
            f"{folder / split_file} is missing: making another split from the annotations. Figures "
            f"are not comparable with published ones; `causalclip data download {name}` "
            "gets the published split"
        )
        try:
            parts = type(self).create(folder, Path(self.image_dir))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{name} needs {split_file} in {folder} (`causalclip data download {name}`),"
                f" or the owners' annotations, but: {error}"
            ) from None
        return write_split(*parts, folder / split_file, self.image_dir)


def items_of(rows: Sequence[ImageRow], image_dir: Path, *, of: str) -> Items:
    """Turn annotation rows into items whose images all exist.

    Raises:
        FileNotFoundError: with the count and the first five missing images of the set `of`.
    """
    paths = [str(image_dir / row.path) for row in rows]
    require_files(paths, of=of)
    return [
        listed(path, row.label, classname=row.classname)
        for path, row in zip(paths, rows, strict=True)
    ]


# How a split is made where the published file is missing


def from_folders(facts: Facts) -> Create:
    """Cut class folders 50/20/30, those of `facts.ignored` left out, others renamed."""

    def create(_folder: Path, image_dir: Path) -> Parts:
        return create_split(image_dir, ignored=facts.ignored, renamed=facts.renamed)

    return create


def from_lists(read: Callable[[Path], list[list[ImageRow]]]) -> Create:
    """Keep the owners' test list and take a fifth of each class of the other for validation."""

    def create(folder: Path, image_dir: Path) -> Parts:
        trainval, test = (items_of(rows, image_dir, of=str(folder)) for rows in read(folder))
        return *split_trainval(trainval), test

    return create


def _pets(folder: Path) -> list[list[ImageRow]]:
    lists = folder / "annotations"
    return [annotations.oxford_pets(lists / f"{part}.txt") for part in ("trainval", "test")]


def _cars(folder: Path) -> list[list[ImageRow]]:
    meta = folder / "devkit" / "cars_meta.mat"
    train = folder / "devkit" / "cars_train_annos.mat"
    test = folder / "cars_test_annos_withlabels.mat"
    lists = ((train, "cars_train"), (test, "cars_test"))
    return [annotations.stanford_cars(path, meta, part) for path, part in lists]


def _sun(folder: Path) -> list[list[ImageRow]]:
    lists = (folder / f"{part}_01.txt" for part in ("Training", "Testing"))
    return [annotations.sun397(path, folder / "ClassName.txt") for path in lists]


def _ucf(folder: Path) -> list[list[ImageRow]]:
    lists = folder / "ucfTrainTestlist"
    files = (lists / f"{part}list01.txt" for part in ("train", "test"))
    return [annotations.ucf101(path, lists / "classInd.txt") for path in files]


def _flowers(folder: Path, image_dir: Path) -> Parts:
    rows = annotations.oxford_flowers(folder / "imagelabels.mat", folder / "cat_to_name.json")
    by_label = defaultdict(list)
    for item in items_of(rows, image_dir, of=str(folder)):
        by_label[item.label].append(item)
    parts = ([], [], [])
    for items in by_label.values():
        shuffle(items)
        for whole, part in zip(parts, cut(items, 0.5, 0.2, of=items[0].classname), strict=True):
            whole.extend(part)
    return parts


def _aircraft(folder: Path, image_dir: Path) -> Parts:
    train, val, test = (
        items_of(
            annotations.fgvc_aircraft(
                folder / facts_of("FGVCAircraft").lists.format(part), folder / "variants.txt"
            ),
            image_dir,
            of=str(folder),
        )
        for part in ("train", "val", "test")
    )
    return train, val, test


OWN_LISTS: dict[str, Create] = {
    "OxfordPets": from_lists(_pets),
    "StanfordCars": from_lists(_cars),
    "OxfordFlowers": _flowers,
    "FGVCAircraft": _aircraft,
    "SUN397": from_lists(_sun),
    "UCF101": from_lists(_ucf),
}
"""Sets whose parts follow from the owners' files; the others' class folders are cut."""


def _published(facts: Facts) -> type[RecognitionSet]:
    attributes = {
        "__doc__": f"{facts.name}, as CoOp reads it.",
        "create": staticmethod(OWN_LISTS.get(facts.name) or from_folders(facts)),
    }
    return type(facts.name, (RecognitionSet,), attributes)


DATASETS = tuple(map(_published, RECOGNITION))
