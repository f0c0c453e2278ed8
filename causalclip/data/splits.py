"""Train, val and test as CoOp makes them: split files, and base and new classes.

All draws use Python's global generator in the order of Dassl 0.6.3 and CoOp, so that a seed gives
the same split in all code bases that are based on CoOp.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from dassl.data.datasets import Datum
from dassl.utils import listdir_nohidden
from yacs.config import CfgNode

from causalclip.data.listing import listed, relative, require_files
from causalclip.files.caches import NotJSONError, read_json, store_json

Items = Sequence[Datum]
Parts = tuple[Items, Items, Items]
"""Train, val and test."""
ItemT = TypeVar("ItemT")
Subsample = Literal["all", "base", "new"]
Rounding = Literal["ceil", "floor"]
PARTS = ("train", "val", "test")
PART_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Name of a folder or split, in lower case -> part, as in Hugging Face's package `datasets`."""
LABEL = "[0-9]{1,7}"
"""Pattern of a label: a number below ten million."""


# The split file: {"train" | "val" | "test": [[path below the image folder, label, class name]]}


def read_split(path: str | os.PathLike, image_dir: str | os.PathLike) -> Parts:
    """Read CoOp's split json; every image below `image_dir` must exist.

    Raises:
        FileNotFoundError: with the count and the first five missing images.
        ValueError: naming the row of a malformed entry, a label with two names, or a gap in the
            labels of the training part.
    """
    print(f"Reading split from {path}")
    rows = read_split_rows(path)
    say_shared_names(check_labels(rows, str(path)).values(), where=str(path))
    # A path in a split file may begin with a slash.
    paths = {
        part: [os.path.join(image_dir, slashes(row[0]).removeprefix("/")) for row in rows[part]]
        for part in PARTS
    }
    require_files([p for part in PARTS for p in paths[part]], of=f"the split {path}")
    train, val, test = (
        [
            listed(p, int(row[1]), classname=row[2])
            for p, row in zip(paths[part], rows[part], strict=True)
        ]
        for part in PARTS
    )
    return train, val, test


def read_split_rows(path: str | os.PathLike) -> dict[str, list]:
    """Return the rows of a split json unchanged; only the form of each row is checked.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is no split file; names the malformed row.
    """
    try:
        split = read_json(Path(path))
    except NotJSONError as error:
        raise ValueError(f"{path} must be a JSON split file, got {error}") from None
    if not isinstance(split, dict) or not all(isinstance(split.get(p), list) for p in PARTS):
        raise ValueError(f"{path} must hold an object with the lists train, val and test")
    for part in PARTS:
        for number, row in enumerate(split[part]):
            _check_row(row, f"{path}, {part}[{number}]")
    return split


def _check_row(row: Any, where: str) -> None:
    shape = isinstance(row, list) and len(row) == 3
    texts = shape and isinstance(row[0], str) and isinstance(row[2], str)
    # CoOp's own files contain ints, and its reader accepts "3" too.
    if not texts or not re.fullmatch(LABEL, str(row[1])):
        raise ValueError(f"{where} must be [path, label >= 0, class name], got {row!r:.200}")
    if not is_plain(slashes(row[0]).removeprefix("/")):
        raise ValueError(
            f"{where} must name an image below the image folder in its one spelling (no empty part,"
            f" no . or ..), got {row[0]!r}"
        )
    if not row[2].strip():
        raise ValueError(f"{where} must have a class name, got {row[2]!r}")


def is_plain(path: str) -> bool:
    """Return whether a relative path has no NUL character and no empty, "." or ".." part."""
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


def slashes(path: str) -> str:
    """Return a path with forward slashes, also one that was written on Windows."""
    return path.replace("\\", "/")


def check_labels(rows: Mapping[str, Sequence], where: str) -> dict[int, str]:
    """Return label -> class name of all parts; labels must be 0..K-1, with one name each.

    Raises:
        ValueError: for a label with two names, or without a training image; begins with `where`.
    """
    names: dict[int, str] = {}
    for part in PARTS:
        for _, label, classname in rows[part]:
            if names.setdefault(int(label), classname) != classname:
                raise ValueError(
                    f"{where}: label {label} must have one class name, "
                    f"got {names[int(label)]!r} and {classname!r}"
                )
    if names and (first := min(names)):
        raise ValueError(f"{where}: labels start at {first}; subtract {first}, they count from 0")
    trained = {int(row[1]) for row in rows["train"]}
    count = max(names, default=-1) + 1
    if len(trained) < count:
        without = itertools.islice((y for y in range(count) if y not in trained), 5)
        shown = ", ".join(f"{y} ({names.get(y, 'no name')})" for y in without)
        raise ValueError(
            f"{where}: every label must have a training image, {count - len(trained)} have none: "
            f"{shown}"
        )
    return names


def say_shared_names(names: Iterable[str], *, where: str) -> None:
    """Print the class names that several classes share; prompts cannot distinguish the classes.

    This is not an error, as some published data sets have them (ImageNet's two "sunglasses").
    """
    shared = sorted(name for name, count in Counter(names).items() if count > 1)
    if shared:
        print(f"Several classes share a name in {where}: {', '.join(shared)}")


def write_split(
    train: Items, val: Items, test: Items, path: str | os.PathLike, image_dir: str | os.PathLike
) -> Path:
    """Write CoOp's split json, with paths relative to `image_dir`; return the file's path.

    The first of several processes wins, so read the file again instead of using the arguments.
    """
    parts = zip(PARTS, (train, val, test), strict=True)
    split = {part: list(rows_of(items, image_dir)) for part, items in parts}
    place = store_json(path, split, keep_existing=True)
    print(f"Saved split to {place}")
    return place


def rows_of(items: Items, root: str | os.PathLike) -> Iterator[tuple[str, int, str]]:
    """Yield the items' rows as in a split file, with paths relative to `root`."""
    return ((relative(item.impath, root), item.label, item.classname) for item in items)


def create_split(image_dir: Path, *, ignored: Sequence[str], renamed: Mapping[str, str]) -> Parts:
    """Split class folders 50/20/30 as CoOp's `read_and_split_data`, class after class.

    As in CoOp, the images of a class are shuffled from the order in which the file system lists
    them. The result depends on that order, which is why the split is written to a file.

    Raises:
        ValueError: for a class of too few images.
        FileNotFoundError: if `image_dir` is missing.
    """
    categories = sorted(c for c in listdir_nohidden(str(image_dir)) if c not in ignored)
    print(f"Splitting {image_dir} into 50% train and 20% val, the rest test")
    by_class = []
    for label, category in enumerate(categories):
        folder, name = os.path.join(image_dir, category), renamed.get(category, category)
        files = listdir_nohidden(folder)
        items = [listed(os.path.join(folder, file), label, classname=name) for file in files]
        random.shuffle(items)
        by_class.append((category, items))
    return cut_classes(by_class)


def cut_classes(by_class: Iterable[tuple[str, Items]]) -> Parts:
    """Cut the shuffled images of each class 50/20/30; the classes' names are for messages.

    Raises:
        ValueError: for a class of too few images.
    """
    parts: tuple[list[Datum], list[Datum], list[Datum]] = [], [], []
    for name, items in by_class:
        for whole, part in zip(parts, cut(items, 0.5, 0.2, of=f"class {name!r}"), strict=True):
            whole.extend(part)
    return parts


def cut(
    items: Sequence[ItemT], p_train: float, p_val: float, *, of: str
) -> tuple[Sequence[ItemT], Sequence[ItemT], Sequence[ItemT]]:
    """Cut a shuffled list in three as CoOp does; `of` names the list in the message.

    Raises:
        ValueError: if a part would be empty.
    """
    sizes = _sizes(len(items), p_train, p_val)
    if min(sizes) < 1:
        least = next(n for n in itertools.count(3) if min(_sizes(n, p_train, p_val)) >= 1)
        raise ValueError(f"{of} has {len(items)} images; train, val and test need {least} or more")
    n_train, n_val, _ = sizes
    return items[:n_train], items[n_train : n_train + n_val], items[n_train + n_val :]


def _sizes(count: int, p_train: float, p_val: float) -> tuple[int, int, int]:
    n_train, n_val = round(count * p_train), round(count * p_val)
    return n_train, n_val, count - n_train - n_val


def split_trainval(trainval: Items) -> tuple[Items, Items]:
    """Take a fifth of each class for validation, as CoOp's `split_trainval`.

    Raises:
        ValueError: for a class of too few images.
    """
    by_label = defaultdict(list)
    for index, item in enumerate(trainval):
        by_label[item.label].append(index)
    train, val = [], []
    for indices in by_label.values():
        n_val = round(len(indices) * 0.2)
        if n_val < 1:
            name = trainval[indices[0]].classname
            raise ValueError(f"class {name!r} has {len(indices)} images; it needs 3 or more")
        random.shuffle(indices)
        val.extend(trainval[i] for i in indices[:n_val])
        train.extend(trainval[i] for i in indices[n_val:])
    return train, val


# Base and new classes


def halves(cfg: CfgNode) -> dict[str, Any]:
    """Return the options of `subsample_classes` from the settings.

    The configuration of another code base may lack SUBSAMPLE_ROUNDING.
    """
    settings = cfg.DATASET
    rounding = settings.get("SUBSAMPLE_ROUNDING", "ceil")
    return {"subsample": settings.SUBSAMPLE_CLASSES, "rounding": rounding}


def count_base(n_classes: int, rounding: Rounding = "ceil") -> int:
    """Return the number of base classes: half of `n_classes`, rounded up, or down with `floor`.

    CoOp rounds up; CLIP-ICM's and CLIPood's code for open classes rounds down.

    Raises:
        ValueError: for another word than `ceil` or `floor`.
    """
    if rounding not in ("ceil", "floor"):
        raise ValueError(f"DATASET.SUBSAMPLE_ROUNDING must be 'ceil' or 'floor', got {rounding!r}")
    return math.ceil(n_classes / 2) if rounding == "ceil" else n_classes // 2


def subsample_classes(
    *splits: Items, subsample: Subsample = "all", rounding: Rounding = "ceil"
) -> tuple[Items, ...]:
    """Keep the first half (`base`, of `count_base` classes) or the rest (`new`) of the labels.

    The labels are those of the first part, sorted, and start at 0 in each half. This is CoOp's
    function with one difference: images keep their domain.

    Raises:
        ValueError: for another word than `all`, `base` or `new`, another rounding than `ceil` or
            `floor`, or fewer than two classes.
    """
    if subsample not in ("all", "base", "new"):
        raise ValueError(
            f"DATASET.SUBSAMPLE_CLASSES must be 'all', 'base' or 'new', got {subsample!r}"
        )
    if subsample == "all":
        return splits
    labels = sorted({item.label for item in splits[0]})
    if len(labels) < 2:
        raise ValueError(f"base and new classes need 2 classes or more, got {len(labels)}")
    print(f"SUBSAMPLE {subsample.upper()} CLASSES!")
    half = count_base(len(labels), rounding)
    selected = labels[:half] if subsample == "base" else labels[half:]
    relabel = {label: i for i, label in enumerate(selected)}
    return tuple(
        [
            listed(item.impath, relabel[item.label], domain=item.domain, classname=item.classname)
            for item in items
            if item.label in relabel
        ]
        for items in splits
    )
