"""Train, val and test as CoOp makes them: split files, few-shot sets, base and new classes.

Every draw comes from Python's global generator, in the order of Dassl 0.6.3 and CoOp, so that one
seed gives one few-shot set in all code bases of the family.
"""

import hashlib
import json
import math
import os
import pickle
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import listdir_nohidden

from causalclip.datasets.caches import load_json, store_json
from causalclip.datasets.listing import FolderItems, listed, relative, require_files

Items = list[Datum]
Subsample = Literal["all", "base", "new"]
PARTS = ("train", "val", "test")


# The split file: {"train" | "val" | "test": [[path below the image folder, label, class name]]}


def read_split(path: str | os.PathLike, image_dir: str | os.PathLike) -> tuple[Items, Items, Items]:
    """Read CoOp's split json; every image below `image_dir` must exist.

    Raises FileNotFoundError with the count and the first five missing images, ValueError naming the
    row of a malformed entry, a label with two names, or a gap in the labels of the training part.
    """
    print(f"Reading split from {path}")
    rows = read_split_rows(path)
    say_shared_names(check_labels(rows, str(path)).values(), where=str(path))
    paths = {part: [_join(image_dir, row[0]) for row in rows[part]] for part in PARTS}
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
    """Return the rows of a split json as they stand, checked for shape only."""
    try:
        split = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be a JSON split file, got {error}") from None
    if not isinstance(split, dict) or not all(isinstance(split.get(p), list) for p in PARTS):
        raise ValueError(f"{path} must hold an object with the lists train, val and test")
    for part in PARTS:
        for number, row in enumerate(split[part]):
            _check_row(row, f"{path}, {part}[{number}]")
    return split


def _check_row(row, where: str) -> None:
    shape = isinstance(row, list) and len(row) == 3
    if not (shape and isinstance(row[0], str) and isinstance(row[2], str) and _is_label(row[1])):
        raise ValueError(f"{where} must be [path, label >= 0, class name], got {row!r}")


def _is_label(value) -> bool:
    return str(value).isdigit()  # CoOp's own files hold ints, and its reader takes "3" too


def check_labels(rows: Mapping[str, Sequence], where: str) -> dict[int, str]:
    """Return label -> class name of all parts; one name a label, and 0..K-1 each with an image."""
    names: dict[int, str] = {}
    for part in PARTS:
        for _, label, classname in rows[part]:
            if names.setdefault(int(label), classname) != classname:
                raise ValueError(
                    f"{where}: label {label} must have one class name, "
                    f"got {names[int(label)]!r} and {classname!r}"
                )
    trained = {int(row[1]) for row in rows["train"]}
    without = sorted(set(range(max(names, default=-1) + 1)) - trained)
    if without:
        shown = ", ".join(f"{y} ({names.get(y, 'no name')})" for y in without[:5])
        raise ValueError(
            f"{where}: every label must have a training image, {len(without)} have none: {shown}"
        )
    return names


def say_shared_names(names: Iterable[str], *, where: str) -> None:
    """Print which class names several classes share; no prompt can tell those apart.

    Some published sets have them (ImageNet's two "sunglasses"), so this is no error there.
    """
    shared = sorted(name for name, count in Counter(names).items() if count > 1)
    if shared:
        print(f"Several classes share a name in {where}: {', '.join(shared)}")


def _join(folder: str | os.PathLike, path: str) -> str:
    # A split saved on Windows, or with an image folder that ended in a slash.
    return os.path.join(folder, path.replace("\\", "/").lstrip("/"))


def write_split(
    train: Items, val: Items, test: Items, path: str | os.PathLike, image_dir: str | os.PathLike
) -> Path:
    """Write CoOp's split json, paths relative to `image_dir`; return where it went.

    The first of several processes wins: read the file again rather than using what was passed in.
    """
    parts = zip(PARTS, (train, val, test), strict=True)
    split = {part: list(_rows(items, image_dir)) for part, items in parts}
    place = store_json(path, split, keep_existing=True)
    print(f"Saved split to {place}")
    return place


def _rows(items: Items, root: str | os.PathLike) -> Iterator[tuple[str, int, str]]:
    return ((relative(item.impath, root), item.label, item.classname) for item in items)


def create_split(
    image_dir: str | os.PathLike,
    *,
    p_train: float = 0.5,
    p_val: float = 0.2,
    ignored: Sequence[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> tuple[Items, Items, Items]:
    """Split class folders 50/20/30 as CoOp's `read_and_split_data`, class after class.

    The images of a class are shuffled from the order in which the file system lists them, so the
    result depends on it; that is CoOp's draw, and why the split is written to a file.
    """
    renamed = renamed or {}
    categories = sorted(c for c in listdir_nohidden(image_dir) if c not in ignored)
    print(f"Splitting {image_dir} into {p_train:.0%} train and {p_val:.0%} val, the rest test")
    train, val, test = [], [], []
    for label, category in enumerate(categories):
        folder = os.path.join(image_dir, category)
        items = [
            listed(os.path.join(folder, file), label, classname=renamed.get(category, category))
            for file in listdir_nohidden(folder)
        ]
        random.shuffle(items)
        parts = cut(items, p_train, p_val, of=f"class {category!r}")
        for whole, part in zip((train, val, test), parts, strict=True):
            whole.extend(part)
    return train, val, test


def cut(items: Items, p_train: float, p_val: float, *, of: str) -> tuple[Items, Items, Items]:
    """Cut a shuffled list in three as CoOp does; none of the parts may be empty."""
    n_train, n_val = round(len(items) * p_train), round(len(items) * p_val)
    if min(n_train, n_val, len(items) - n_train - n_val) < 1:
        raise ValueError(
            f"{of} must have enough images for train, val and test, got {len(items)}"
        )
    return items[:n_train], items[n_train : n_train + n_val], items[n_train + n_val :]


def split_trainval(trainval: Items, *, p_val: float = 0.2) -> tuple[Items, Items]:
    """Take the share `p_val` of each class for validation, as CoOp's `split_trainval`."""
    by_label = defaultdict(list)
    for index, item in enumerate(trainval):
        by_label[item.label].append(index)
    train, val = [], []
    for label, indices in by_label.items():
        n_val = round(len(indices) * p_val)
        if n_val < 1:
            raise ValueError(f"label {label} must have 3 images or more, got {len(indices)}")
        random.shuffle(indices)
        val.extend(trainval[i] for i in indices[:n_val])
        train.extend(trainval[i] for i in indices[n_val:])
    return train, val


# Few-shot sets


def fewshot_split(
    dataset: DatasetBase,
    train: Items,
    val: Items | None,
    cfg,
    cache_dir: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
) -> tuple[Items, Items | None]:
    """Draw `NUM_SHOTS` training and at most 4 validation images a class, once per seed.

    `cache_dir` is CoOp's `<dataset>/split_fewshot`; paths are stored relative to `root`, its parent
    if not given. A set that CoOp or MaPLe has stored there is used as it is, otherwise ours,
    `causalclip_shot_K-seed_S.json`, as long as it was drawn from the same split. As in CoOp a
    stored set draws nothing, so the run that stores it and later ones find Python's generator in
    different states afterwards.
    """
    num_shots = cfg.DATASET.NUM_SHOTS
    if num_shots < 1:
        return train, val
    root = Path(root or Path(cache_dir).parent)
    name = f"shot_{num_shots}-seed_{cfg.SEED}"
    published = _published_fewshot(Path(cache_dir, f"{name}.pkl"), train, val, root)
    if published is not None:
        return published
    path = Path(cache_dir, f"causalclip_{name}.json")
    digest = split_digest(train, val or [], root=root)
    stored = _stored_fewshot(path, digest)
    if stored is not None:
        parts = _pick(stored["train"], train, root), _pick(stored["val"], val or [], root)
        return parts if val is not None else (parts[0], None)
    train = dataset.generate_fewshot_dataset(train, num_shots=num_shots)
    if val is not None:
        val = dataset.generate_fewshot_dataset(val, num_shots=min(num_shots, 4))
    content = {"digest": digest, "train": list(_rows(train, root))}
    content["val"] = list(_rows(val or [], root))
    print(f"Saving preprocessed few-shot data to {store_json(path, content)}")
    return train, val


def _stored_fewshot(path: Path, digest: str) -> dict | None:
    stored = load_json(path)
    if stored is None:
        return None
    if stored.get("digest") != digest:
        print(f"The split has changed since {path} was drawn: drawing again")
        return None
    print(f"Loading preprocessed few-shot data from {path}")
    return stored


def split_digest(*parts: Items, root: str | os.PathLike) -> str:
    """Return the SHA-256 of the parts' relative paths, labels and names, in order."""
    digest = hashlib.sha256()
    for items in parts:
        digest.update(b"\0part\0")
        if isinstance(items, FolderItems):  # a million at a time
            items.update_digest(digest, root)
            continue
        for path, label, classname in _rows(items, root):
            digest.update(os.fsencode(f"{path}\t{label}\t{classname}\n"))
    return digest.hexdigest()


def _pick(rows: Sequence, items: Items, root: Path) -> Items:
    by_path = _by_path(items, {row[0] for row in rows}, root)
    return [by_path[row[0]] for row in rows]


def _by_path(items: Items, paths: Collection[str], root: Path) -> dict[str, Datum]:
    if isinstance(items, FolderItems):
        return items.find(paths, root)
    located = ((relative(item.impath, root), item) for item in items)
    return {path: item for path, item in located if path in paths}


# Few-shot sets that CoOp or MaPLe has stored: pickles of Dassl objects with absolute paths


class _StoredDatum:
    """Takes the state of a pickled Datum without running any of its code."""


class _DatumUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if name == "Datum" and module.split(".")[0] == "dassl":
            return _StoredDatum
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, only Dassl's Datum is allowed")


def _published_fewshot(path: Path, train: Items, val: Items | None, root: Path):
    """Return the set CoOp stored, as items of today's split; None if absent or of another split."""
    if not path.is_file():
        return None
    stored = read_published(path)
    chosen = {
        part: _locate(stored.get(part, []), items or [], root)
        for part, items in (("train", train), ("val", val))
    }
    lost = sum(item is None for items in chosen.values() for item in items)
    if lost:
        print(f"Ignoring {path}: {lost} of its images are not in today's split under their label")
        return None
    print(f"Using the few-shot set that CoOp or MaPLe stored in {path}")
    return chosen["train"], None if val is None else chosen["val"]


def read_published(path: str | os.PathLike) -> dict[str, list[tuple[str, int]]]:
    """Read CoOp's few-shot pickle as {"train" | "val": [(absolute path, label)]}, running no code.

    Raises ValueError if the file is damaged or asks for anything but Dassl's Datum.
    """
    try:
        with open(path, "rb") as file:
            stored = _DatumUnpickler(file).load()
        return {
            part: [(item._impath, item._label) for item in items] for part, items in stored.items()
        }
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(
            f"{path} must be a few-shot file as CoOp writes it, got {error!r}; remove or restore it"
        ) from None


def _locate(stored: Sequence[tuple[str, int]], items: Items, root: Path) -> list[Datum | None]:
    """Find stored absolute paths below today's root, by the longest tail that the split knows."""
    wanted = {_tail(path, 1) for path, _ in stored}
    known = {}
    for item in items:
        if os.path.basename(item.impath) in wanted:
            known[relative(item.impath, root)] = item
    return [_find(path, label, known) for path, label in stored]


def _find(path: str, label: int, known: Mapping[str, Datum]) -> Datum | None:
    for length in range(path.replace("\\", "/").count("/") + 1, 0, -1):
        item = known.get(_tail(path, length))
        if item is not None:
            return item if item.label == label else None
    return None


def _tail(path: str, length: int) -> str:
    return "/".join(path.replace("\\", "/").split("/")[-length:])


# Base and new classes


def subsample_classes(*splits: Items, subsample: Subsample = "all") -> tuple[Items, ...]:
    """Keep the first half (`base`, the larger if odd) or the rest (`new`) of the labels.

    The labels are those of the first part, sorted, and start again at 0 in each half. As in CoOp
    but for one thing: images keep their domain.
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
    half = math.ceil(len(labels) / 2)
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
