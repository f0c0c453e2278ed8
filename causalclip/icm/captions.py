"""CLIP-ICM's interventions on texts: change an attribute of a caption and keep its class.

Captions come from a grid of classes and attributes [ours], or from a file that any captioner or
language model has written.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from causalclip.files.caches import NotJSONError, read_json

# Attributes that do not change the class, each with captions that have one {} for the class name.
ATTRIBUTES_FILE = Path(__file__).with_name("text_attributes.json")
TEXT_ATTRIBUTES: dict[str, list[str]] = json.loads(ATTRIBUTES_FILE.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class CaptionedImage:
    """A caption of an image, and rewrites of it that change attributes but not the class."""

    image: str
    caption: str
    rewrites: tuple[str, ...]


def text_pairs(classnames: Sequence[str]) -> list[tuple[str, str]]:
    """Return caption pairs that differ in one attribute and have the same class [ours].

    There is one pair for each class, each attribute a and each ordered pair of its V_a values:
    sum_a V_a (V_a - 1) pairs per class, from only sum_a V_a captions.
    """
    return [
        (before.format(name), after.format(name))
        for name in classnames
        for values in TEXT_ATTRIBUTES.values()
        for before, after in itertools.permutations(values, 2)
    ]


def load_captions(path: str | os.PathLike, *, images: Collection[str]) -> list[CaptionedImage]:
    """Read captions of images and their rewrites, made by any captioner or language model.

    The file is a JSON list; each row is an object with exactly these keys:

        {"image": "dog/001.jpg", "caption": "a dog", "rewrites": ["a dog on a sandy beach", ...]}

    Raises:
        ValueError: no JSON, or a row that breaks the schema (rows are counted from 1) or repeats
            its own caption as a rewrite, or captions for images that are not in `images`.
    """
    try:
        rows = read_json(Path(path))
    except NotJSONError as error:
        raise ValueError(f"{path} must be a UTF-8 JSON file: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} must hold a non-empty JSON list, got {type(rows).__name__}")
    captions = [_captioned_image(row, f"{path}, row {i}") for i, row in enumerate(rows, start=1)]
    known = set(images)
    unknown = [row.image for row in captions if row.image not in known]
    if unknown:
        raise ValueError(
            f"{path} must caption images of the data set only, got {len(unknown)} unknown ones, "
            f"the first: {', '.join(unknown[:5])}"
        )
    return captions


def caption_pairs(captions: Iterable[CaptionedImage]) -> list[tuple[str, str]]:
    """Return every caption with each of its rewrites."""
    return [(row.caption, rewrite) for row in captions for rewrite in row.rewrites]


def _captioned_image(row: object, where: str) -> CaptionedImage:
    keys = {"image", "caption", "rewrites"}
    if not isinstance(row, dict) or set(row) != keys:
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{where}: must be an object with keys {sorted(keys)}, got {got}")
    for key in ("image", "caption"):
        if not _is_text(row[key]):
            raise ValueError(f"{where}: {key} must be a non-empty string, got {row[key]!r}")
    rewrites = row["rewrites"]
    if not isinstance(rewrites, list) or not rewrites or not all(map(_is_text, rewrites)):
        raise ValueError(
            f"{where}: rewrites must be a non-empty list of non-empty strings, got {rewrites!r}"
        )
    if row["caption"].strip() in (rewrite.strip() for rewrite in rewrites):
        raise ValueError(f"{where}: rewrites must differ from the caption {row['caption']!r}")
    return CaptionedImage(row["image"], row["caption"], tuple(rewrites))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
