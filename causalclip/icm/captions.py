"""CLIP-ICM's interventions on texts: a variant attribute of a caption changes, the class never.

A grid of classes and attributes [ours], or a file of captions by any captioner or language model.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from causalclip.clip.templates import spoken
from causalclip.files.json_file import NotJSONError, read_json

# Variant factors of a picture and some of their values, each a caption around the class name.
TEXT_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "background": (
        "a photo of a {} on a sandy beach.",
        "a photo of a {} in a snowy landscape.",
        "a photo of a {} in a forest.",
        "a photo of a {} in a city street.",
        "a photo of a {} in a living room.",
        "a photo of a {} in front of a plain white wall.",
    ),
    "weather": (
        "a photo of a {} on a sunny day.",
        "a photo of a {} in the rain.",
        "a photo of a {} in thick fog.",
        "a photo of a {} in a snowstorm.",
        "a photo of a {} under a cloudy sky.",
    ),
    "light": (
        "a photo of a {} in bright daylight.",
        "a photo of a {} at sunset.",
        "a photo of a {} at night.",
        "a photo of a {} under neon lights.",
        "a photo of a {} by candlelight.",
    ),
    "medium": (
        "a photo of a {}.",
        "a painting of a {}.",
        "a pencil sketch of a {}.",
        "a sculpture of a {}.",
        "a 3D rendering of a {}.",
        "an embroidery of a {}.",
    ),
    "style": (
        "a {} in the style of a cartoon.",
        "a {} in the style of a watercolor.",
        "a {} in the style of pixel art.",
        "a {} in the style of a black and white photograph.",
        "a {} in the style of graffiti.",
        "a {} in the style of a woodcut.",
    ),
}


@dataclass(frozen=True)
class CaptionedImage:
    """A caption of an image and rewrites of it in which only variant factors differ."""

    image: str
    caption: str
    rewrites: tuple[str, ...]


def text_pairs(
    classnames: Sequence[str],
    *,
    attributes: Mapping[str, Sequence[str]] = TEXT_ATTRIBUTES,
    kinds: Iterable[str] | None = None,
) -> list[tuple[str, str]]:
    """Caption pairs in which one variant attribute changes and the class stays [ours].

    Every class (with "_" read as a space), every attribute of `kinds` (default all) and every
    ordered pair of its values: sum_a V_a (V_a - 1) pairs a class, over only sum_a V_a captions.

    Raises:
        ValueError: no class name, an unknown kind, an attribute without two different values, a
            value without exactly one {} for the class name.
    """
    if isinstance(classnames, str) or not len(classnames):
        raise ValueError(f"classnames must be a non-empty list of names, got {classnames!r}")
    chosen = list(attributes) if kinds is None else list(kinds)
    unknown = [kind for kind in chosen if kind not in attributes]
    if unknown or not chosen:
        raise ValueError(f"kinds must be some of {', '.join(attributes)}, got {chosen}")
    for kind in chosen:
        _check_values(kind, attributes[kind])
    return [
        (before.format(name), after.format(name))
        for name in map(spoken, classnames)
        for kind in chosen
        for before, after in itertools.permutations(attributes[kind], 2)
    ]


def load_captions(
    path: str | os.PathLike, *, images: Collection[str] | None = None
) -> list[CaptionedImage]:
    """Read captions of images and their rewrites, made by any captioner or language model.

    The file is a JSON list; each row is an object with exactly these keys:

        {"image": "dog/001.jpg", "caption": "a dog", "rewrites": ["a dog on a sandy beach", ...]}

    `images`, where given, are the paths a caption may be for.

    Raises:
        ValueError: no JSON, or a row that breaks the schema (rows count from 1) or repeats its own
            caption as a rewrite, or captions for images that are not in `images`.
    """
    try:
        rows = read_json(Path(path))
    except NotJSONError as error:
        raise ValueError(f"{path} must be a UTF-8 JSON file: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path} must hold a non-empty JSON list, got {type(rows).__name__}")
    captions = [_captioned_image(row, f"{path}, row {i}") for i, row in enumerate(rows, start=1)]
    if images is not None:
        _check_known(captions, images, path)
    return captions


def caption_pairs(captions: Iterable[CaptionedImage]) -> list[tuple[str, str]]:
    """Every caption with each of its rewrites: the interventional pairs of these images."""
    return [(row.caption, rewrite) for row in captions for rewrite in row.rewrites]


def _check_values(kind: str, values: Sequence[str]) -> None:
    if isinstance(values, str) or len(set(values)) != len(values) or len(values) < 2:
        raise ValueError(f"attribute {kind!r} must have two or more different values, got {values}")
    for value in values:
        if value.count("{}") != 1:
            raise ValueError(
                f"values of {kind!r} must hold one {{}} for the class name, got {value!r}"
            )


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


def _check_known(
    captions: list[CaptionedImage], images: Collection[str], path: str | os.PathLike
) -> None:
    known = set(images)
    unknown = [row.image for row in captions if row.image not in known]
    if unknown:
        raise ValueError(
            f"{path} must caption images of the data set only, got {len(unknown)} unknown ones, "
            f"the first: {', '.join(unknown[:5])}"
        )
