"""The identity of a data set: digests of its splits, labels, class names and images."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum

from causalclip.files.digests import content_digests

MOST_CONTENTS = 100_000
"""Images of a split whose content counts; of further ones, the size does."""
SPLIT_ATTRIBUTES = {"train": "train_x", "val": "val", "test": "test"}


def data_digests(dataset: DatasetBase, root: str | os.PathLike) -> dict[str, str]:
    """Return the sha256 of each split of a data set that is not empty.

    Args:
        dataset: its items are those that a run reads.
        root: paths count relative to it, so that data may move.

    Raises:
        OSError: an image that cannot be read.
    """
    splits = {name: getattr(dataset, part) or () for name, part in SPLIT_ATTRIBUTES.items()}
    return {name: _split_digest(items, root) for name, items in splits.items() if items}


def _split_digest(items: Sequence[Datum], root: str | os.PathLike) -> str:
    digest = hashlib.sha256()
    paths = [item.impath for item in items]
    contents = content_digests(paths[:MOST_CONTENTS])
    contents += [str(os.stat(path).st_size) for path in paths[MOST_CONTENTS:]]
    for item, content in zip(items, contents, strict=True):
        place = Path(os.path.relpath(item.impath, root)).as_posix()
        row = [place, item.label, item.domain, item.classname, content]
        digest.update(json.dumps(row).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def changed_splits(recorded: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """Return the names of the splits that differ."""
    return [name for name in SPLIT_ATTRIBUTES if recorded.get(name) != current.get(name)]
