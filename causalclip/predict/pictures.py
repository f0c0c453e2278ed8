"""Pictures to predict from: found by path or folder, read in batches, broken ones named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from dassl.utils import read_image
from PIL import Image
from torch import Tensor

from causalclip.data.listing import IMAGE_SUFFIXES

Source = str | os.PathLike | Image.Image
"""An image file, or a picture in memory."""

T = TypeVar("T")


@dataclass(frozen=True)
class Broken:
    """A picture that could not be read."""

    image: str
    """Its path; empty for one in memory."""
    reason: str


def found(sources: Iterable[Source]) -> list[Source]:
    """The pictures among files, folders and pictures; folders are searched to the bottom, sorted.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: a file of another type than an image's, or no image at all.
    """
    pictures = [picture for source in sources for picture in _found(source)]
    if not pictures:
        raise ValueError("there must be one picture or more, got none")
    return pictures


def _found(source: Source) -> list[Source]:
    if isinstance(source, Image.Image):
        return [source]
    path = Path(source)
    if path.is_dir():
        return list(_below(path))
    if not path.exists():
        raise FileNotFoundError(f"no image {path}")
    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        raise ValueError(
            f"{path} must be an image, {' '.join(IMAGE_SUFFIXES)}, or a folder of them"
        )
    return [str(path)]


def _below(folder: Path) -> list[str]:
    paths = [
        os.path.join(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
    ]
    if not paths:
        raise ValueError(f"no image ({' '.join(IMAGE_SUFFIXES)}) in the folder {folder}")
    return sorted(paths)


def name_of(source: Source) -> str:
    """The path of a picture; empty for one in memory."""
    return "" if isinstance(source, Image.Image) else str(source)


def read(source: Source) -> Image.Image | Broken:
    """A picture in RGB, as evaluations read it, or why it cannot be read."""
    try:
        return _in_memory(source) if isinstance(source, Image.Image) else read_image(str(source))
    # What Pillow raises for broken files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        cause = error.__cause__ or error  # the error names the file, and so does what is broken
        return Broken(name_of(source), str(cause) or type(cause).__name__)


def _in_memory(picture: Image.Image) -> Image.Image:
    if picture.mode[0] in "FI":  # Pillow cuts off what is outside of 0..255
        raise ValueError(f"its pixels ({picture.mode}) have no known range: give 8 bits a channel")
    return picture.convert("RGB")


def shown(
    sources: Iterable[Source], transform: Callable[[Image.Image], Tensor], *, batch_size: int
) -> Iterator[list[tuple[str, Tensor | Broken]]]:
    """Batches of (name, tensor (3, R, R) or why there is none), in the order of the sources."""

    def shown_one(source: Source) -> tuple[str, Tensor | Broken]:
        picture = read(source)
        return name_of(source), picture if isinstance(picture, Broken) else transform(picture)

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        for batch in batched(sources, batch_size):
            yield list(pool.map(shown_one, batch))


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last perhaps shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
