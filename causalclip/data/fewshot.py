"""Draw few-shot sets once per seed as Dassl and CoOp do, store them, and read them safely.

Draws use Python's global generator, so that a seed gives the same few-shot set in all code bases
that are based on CoOp. A few-shot set that CoOp or MaPLe has stored is used unchanged.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dassl.data.datasets import DatasetBase, Datum
from yacs.config import CfgNode

from causalclip.data.listing import FolderItems, relative
from causalclip.data.pictures import SHOWN
from causalclip.data.splits import Items, rows_of, slashes
from causalclip.files.caches import load_json, store_json


def fewshot_split(
    dataset: DatasetBase,
    train: Items,
    val: Items,
    cfg: CfgNode,
    cache_dir: str | os.PathLike,
    *,
    root: str | os.PathLike | None = None,
) -> tuple[Items, Items]:
    """Draw `NUM_SHOTS` training and at most 4 validation images per class, once per seed.

    `val` is empty for a data set without validation images. `cache_dir` is CoOp's
    `<dataset>/split_fewshot`. Paths are stored relative to `root`, by default its parent. A set
    that CoOp or MaPLe has stored there is used unchanged. Otherwise causalclip's own file,
    `causalclip_shot_K-seed_S.json`, is used if it was drawn from the same split. As in CoOp, a
    stored set needs no random numbers. So Python's generator has another state after the run that
    stores the set than after later runs.

    Raises:
        ValueError: for `NUM_SHOTS` that is neither positive nor -1, or a damaged file of CoOp's.
    """
    num_shots = cfg.DATASET.NUM_SHOTS
    if num_shots == -1:
        return train, val
    if num_shots < 1:
        raise ValueError(
            "DATASET.NUM_SHOTS must be a positive number of images a class, or -1 for all, "
            f"got {num_shots}"
        )
    root, name = Path(root or Path(cache_dir).parent), f"shot_{num_shots}-seed_{cfg.SEED}"
    chosen = _published_fewshot(Path(cache_dir, f"{name}.pkl"), train, val, root)
    path = Path(cache_dir, f"causalclip_{name}.json")
    train, val = chosen or _own_fewshot(path, dataset, train, val, num_shots, root)
    counts = Counter(item.classname for item in train)
    fewer = [f"{name!r} has {count}" for name, count in counts.items() if count < num_shots]
    if fewer:
        more = ", ..." if len(fewer) > SHOWN else ""
        print(f"Fewer training images than NUM_SHOTS {num_shots}: {', '.join(fewer[:SHOWN])}{more}")
    return train, val


def _own_fewshot(
    path: Path, dataset: DatasetBase, train: Items, val: Items, num_shots: int, root: Path
) -> tuple[Items, Items]:
    """Return the set stored in `path` if it is valid for this split, else draw and store one."""
    digest, stored = split_digest(train, val, root=root), load_json(path)
    if stored is not None:
        if not (isinstance(stored, dict) and {"digest", "sha256"} <= stored.keys()) or (
            stored["sha256"] != _sum_of(stored)
        ):
            print(f"Drawing again: {path} is damaged")
        elif stored["digest"] != digest:
            print(f"The split has changed since {path} was drawn: drawing again")
        else:
            print(f"Loading preprocessed few-shot data from {path}")
            return _pick(stored["train"], train, root), _pick(stored["val"], val, root)
    train = dataset.generate_fewshot_dataset(train, num_shots=num_shots)
    if val:
        val = dataset.generate_fewshot_dataset(val, num_shots=min(num_shots, 4))
    content: dict[str, Any] = {"digest": digest, "train": list(rows_of(train, root))}
    content["val"] = list(rows_of(val, root))
    content["sha256"] = _sum_of(content)
    print(f"Saving preprocessed few-shot data to {store_json(path, content)}")
    return train, val


def _sum_of(stored: Mapping[str, Any]) -> str:
    rows = json.dumps([stored.get("train"), stored.get("val")])
    return hashlib.sha256(rows.encode()).hexdigest()


def split_digest(*parts: Items, root: str | os.PathLike) -> str:
    """Return the SHA-256 of the parts' relative paths, labels and names, in order."""
    digest = hashlib.sha256()
    for items in parts:
        digest.update(b"\0part\0")
        if isinstance(items, FolderItems):  # faster for a million images
            items.update_digest(digest, root)
            continue
        for path, label, classname in rows_of(items, root):
            digest.update(os.fsencode(f"{path}\t{label}\t{classname}\n"))
    return digest.hexdigest()


def _pick(rows: Sequence, items: Items, root: Path) -> Items:
    """Return the items of stored rows, whose first entry is a path below `root`."""
    paths = {row[0] for row in rows}
    if isinstance(items, FolderItems):
        by_path: Mapping[str, Datum] = items.find(paths, root)
    else:
        located = ((relative(item.impath, root), item) for item in items)
        by_path = {path: item for path, item in located if path in paths}
    return [by_path[row[0]] for row in rows]


# Few-shot sets that CoOp or MaPLe has stored: pickles of Dassl objects with absolute paths


DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    MemoryError,  # a damaged length asks for too much memory
    OverflowError,
)
"""Errors of Python's unpickler for damaged bytes, and of `read_published` for other content."""


class _StoredDatum:
    """Stand-in that receives the state of a pickled Datum without running any of its code."""


class _DatumUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        """Return the stand-in for Dassl's Datum; refuse every other name."""
        if name == "Datum" and module.split(".")[0] == "dassl":
            return _StoredDatum
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, only Dassl's Datum is allowed")


def _published_fewshot(
    path: Path, train: Items, val: Items, root: Path
) -> tuple[Items, Items] | None:
    """Return CoOp's stored set as items of this split; None if missing or of another split."""
    if not path.is_file():
        return None
    stored = read_published(path)
    wanted = stored.get("train", []), stored.get("val", []) if val else []
    chosen = _locate(wanted[0], train, root), _locate(wanted[1], val, root)
    if lost := sum(map(len, wanted)) - sum(map(len, chosen)):
        print(f"Ignoring {path}: {lost} of its images are not in today's split under their label")
        return None
    print(f"Using the few-shot set that CoOp or MaPLe stored in {path}")
    return chosen


def read_published(path: str | os.PathLike) -> dict[str, list[tuple[str, int]]]:
    """Read CoOp's few-shot pickle without running code: {"train" | "val": [(full path, label)]}.

    Raises:
        ValueError: if the file is damaged or asks for anything but Dassl's Datum.
    """
    try:
        with open(path, "rb") as file:
            stored = _DatumUnpickler(file).load()
        return {
            part: [(item._impath, item._label) for item in items] for part, items in stored.items()
        }
    except DAMAGED as error:
        raise ValueError(
            f"{path} must be a few-shot file as CoOp writes it, got {error!r}; remove or restore it"
        ) from None


def _locate(stored: Sequence[tuple[str, int]], items: Items, root: Path) -> Items:
    """Find the items of stored absolute paths, by the longest path end that is in the split."""
    wanted = {slashes(path).rpartition("/")[2] for path, _ in stored}
    named = (item for item in items if os.path.basename(item.impath) in wanted)
    known = {relative(item.impath, root): item for item in named}
    found = (_find(path, label, known) for path, label in stored)
    return [item for item in found if item is not None]


def _find(path: str, label: int, known: Mapping[str, Datum]) -> Datum | None:
    parts = slashes(path).split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    item = next((known[end] for end in ends if end in known), None)
    return item if item is not None and item.label == label else None
