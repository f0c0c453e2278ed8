"""Pictures on the disk: which files of a folder are pictures, and which can be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from dassl.utils import read_image
from PIL import Image
from tqdm.auto import tqdm

# torchvision's list, which DomainBed uses too, so that both count the same published images.
PUBLISHED_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
PICTURE_SUFFIXES = PUBLISHED_SUFFIXES + (
    ".jpe", ".jfif", ".jp2", ".pbm", ".pnm", ".dib", ".avif", ".gif",
)  # fmt: skip
"""Suffixes of formats that Pillow reads."""

# Errors of Pillow, its codecs and Dassl's reader for broken files and too many pixels.
BROKEN = (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError)
OTHER_SUFFIX = "not a picture's suffix"
SHOWN = 5  # entries of a list in a message


class Found(NamedTuple):
    """The content of a folder; relative paths with forward slashes, sorted."""

    pictures: list[str]
    left_out: dict[str, str]
    """Path of each file or folder that is not used -> reason."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or a system's own: .DS_Store, __MACOSX, ..."""
    return name.startswith(".") or name == "__MACOSX"


def find_pictures(folder: str | os.PathLike, suffixes: tuple[str, ...] = PICTURE_SUFFIXES) -> Found:
    """Find the pictures in a folder and the folders below it.

    Hidden files and folders are left out. Links are followed, except to a folder above. Give the
    `suffixes` of pictures in lower case.

    Raises:
        OSError: `folder` or one below cannot be listed.
    """
    real = Path(folder).resolve()
    above = frozenset(map(str, (real, *real.parents)))
    found = dict(sorted(_walk(os.fspath(folder), "", above, suffixes)))
    left_out = {path: reason for path, reason in found.items() if reason}
    return Found([path for path, reason in found.items() if not reason], left_out)


def _walk(
    folder: str, below: str, above: frozenset[str], suffixes: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Yield each path and why it is left out, "" for a picture; `above`: real paths of parents."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{below}{entry.name}"
            if is_hidden(entry.name):
                yield path, "hidden"
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in above:
                    yield path, "a link to a folder above it"
                else:
                    yield from _walk(entry.path, f"{path}/", above | {real}, suffixes)
            elif not entry.is_file():
                yield path, "no regular file"
            else:
                picture = entry.name.lower().endswith(suffixes)
                yield path, "" if picture else OTHER_SUFFIX


def reason_for_none(found: Found) -> str:
    """Describe what a folder without pictures contains instead, and what to do, for a message."""
    names = [path for path, reason in found.left_out.items() if reason == OTHER_SUFFIX]
    suffixes = Counter(os.path.splitext(name)[1].lower() or "without suffix" for name in names)
    if suffixes:
        held = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(SHOWN))
        known = " ".join(PICTURE_SUFFIXES)
        return f"it holds {held}; Pillow reads {known} here: convert other formats, e.g. to .jpg"
    others = [f"{path} ({reason})" for path, reason in found.left_out.items()][:SHOWN]
    return f"it holds {', '.join(others) or 'no files'}"


def say_left_out(reasons: Mapping[str, str]) -> dict[str, Any]:
    """Print one line on files left out, path -> reason; return their count and the first ones."""
    first = [f"{ascii(path)[1:-1]}: {ascii(why)[1:-1]}" for path, why in reasons.items()][:SHOWN]
    if reasons:
        more = ", ..." if len(reasons) > SHOWN else ""
        print(f"Left out {len(reasons)} files: {', '.join(first)}{more}")
    return {"count": len(reasons), "first": first}


def unreadable(paths: Sequence[str]) -> dict[str, str]:
    """Return path -> reason for the pictures that cannot be decoded to the end."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        reasons = tqdm(pool.map(_reason, paths), total=len(paths), desc="Reading", disable=None)
        return {path: why for path, why in zip(paths, reasons, strict=True) if why}


def _reason(path: str) -> str:
    image = image_or_reason(path)
    return image if isinstance(image, str) else ""


def image_or_reason(path: str) -> Image.Image | str:
    """Return an image in RGB as the loaders read it, or the reason why it cannot be read."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            return "no regular file"  # reading a pipe could take forever
        return read_image(path)
    except BROKEN as error:
        cause = error.__cause__ or error  # its message has no path
        return f"{type(cause).__name__}: {cause}"
