"""CoOp's recognition data sets other than ImageNet, in one reader.

If the published split file exists, all are read in the same way. Otherwise a split is made once
from the data set's own annotations, as in CoOp, and written next to the data.
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
from causalclip.data.splits import (
    PARTS,
    Items,
    Parts,
    create_split,
    cut_classes,
    read_split,
    split_trainval,
    write_split,
)
from causalclip.files.caches import first_existing


class RecognitionSet(SplitSet):
    """One of CoOp's sets: a split file, few-shot sets drawn from it, and base and new classes.

    Raises:
        FileNotFoundError: if the folder, an image, or both split file and annotations are missing.
        ValueError: for a split file or annotations that are not as published.
    """

    def __init__(self, cfg: CfgNode) -> None:
        facts = facts_of(type(self).__name__)
        folder = require_root(cfg.DATASET.ROOT, facts.folder)
        self.dataset_dir, self.image_dir = str(folder), str(folder / facts.image_dir)
        if facts.split_file:
            path = first_existing(folder / facts.split_file) or _make_split(facts, folder)
            parts = read_split(path, self.image_dir)
        else:
            parts = _parts_of(facts, folder)
        self.build(cfg, *parts, root=folder, fewshot_dir=folder / "split_fewshot")


def _make_split(facts: Facts, folder: Path) -> Path:
    path, get = folder / facts.split_file, f"`causalclip data download {facts.name}`"
    print(
        f"{path} is missing: making another split from the annotations. Figures are not "
        f"comparable with published ones; {get} gets the published split"
    )
    try:
        parts = _parts_of(facts, folder)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{facts.name} needs {facts.split_file} in {folder} ({get}), or the owners' "
            f"annotations, but: {error}"
        ) from None
    return write_split(*parts, path, folder / facts.image_dir)


def _parts_of(facts: Facts, folder: Path) -> Parts:
    """Return the parts as CoOp makes them from the owners' lists or, without lists, class folders.

    Of two lists, the second is the test part, and a fifth of each class of the first is val.
    """
    image_dir = folder / facts.image_dir
    if facts.name not in OWN_LISTS:
        return create_split(image_dir, ignored=facts.ignored, renamed=facts.renamed)
    lists = [_items(rows, image_dir, of=str(folder)) for rows in OWN_LISTS[facts.name](folder)]
    if len(lists) == 3:
        return lists[0], lists[1], lists[2]
    if len(lists) == 2:
        return *split_trainval(lists[0]), lists[1]
    by_label = defaultdict(list)
    for item in lists[0]:
        by_label[item.label].append(item)
    for items in by_label.values():
        shuffle(items)
    return cut_classes((items[0].classname, items) for items in by_label.values())


def _items(rows: Sequence[ImageRow], image_dir: Path, *, of: str) -> Items:
    paths = [str(image_dir / row.path) for row in rows]
    require_files(paths, of=of)
    return [
        listed(path, row.label, classname=row.classname)
        for path, row in zip(paths, rows, strict=True)
    ]


# The owners' lists: of all images, of trainval and test, or of train, val and test


def _pets(folder: Path) -> list[list[ImageRow]]:
    lists = folder / "annotations"
    return [annotations.oxford_pets(lists / f"{part}.txt") for part in ("trainval", "test")]


def _cars(folder: Path) -> list[list[ImageRow]]:
    meta = folder / "devkit" / "cars_meta.mat"
    train = folder / "devkit" / "cars_train_annos.mat"
    test = folder / "cars_test_annos_withlabels.mat"
    lists = ((train, "cars_train"), (test, "cars_test"))
    return [annotations.stanford_cars(path, meta, part) for path, part in lists]


def _flowers(folder: Path) -> list[list[ImageRow]]:
    files = folder / "imagelabels.mat", folder / "cat_to_name.json"
    return [annotations.oxford_flowers(*files)]


def _sun(folder: Path) -> list[list[ImageRow]]:
    lists = (folder / f"{part}_01.txt" for part in ("Training", "Testing"))
    return [annotations.sun397(path, folder / "ClassName.txt") for path in lists]


def _ucf(folder: Path) -> list[list[ImageRow]]:
    lists = folder / "ucfTrainTestlist"
    files = (lists / f"{part}list01.txt" for part in ("train", "test"))
    return [annotations.ucf101(path, lists / "classInd.txt") for path in files]


def _aircraft(folder: Path) -> list[list[ImageRow]]:
    lists = facts_of("FGVCAircraft").lists
    variants = folder / "variants.txt"
    return [annotations.fgvc_aircraft(folder / lists.format(part), variants) for part in PARTS]


OWN_LISTS: dict[str, Callable[[Path], list[list[ImageRow]]]] = {
    "OxfordPets": _pets,
    "StanfordCars": _cars,
    "OxfordFlowers": _flowers,
    "FGVCAircraft": _aircraft,
    "SUN397": _sun,
    "UCF101": _ucf,
}
"""Data set -> reader of the owners' lists; class folders are split for all other data sets."""

DATASETS = tuple(
    type(facts.name, (RecognitionSet,), {"__doc__": f"{facts.name}, as CoOp reads it."})
    for facts in RECOGNITION
)
