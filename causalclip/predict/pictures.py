"""Find and read the images to predict, in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from causalclip.data.pictures import (
    BROKEN,
    PICTURE_SUFFIXES,
    find_pictures,
    image_or_reason,
    reason_for_none,
)

T = TypeVar("T")
ImageSource = str | os.PathLike | Image.Image | NDArray[np.uint8] | Tensor
"""A path, a PIL image, or an array that `images_of_array` accepts."""


@dataclass(frozen=True)
class BrokenImage:
    """An image that cannot be read."""

    image: str
    """Path of the image; empty for an image in memory."""
    reason: str


def intact(result: T | BrokenImage) -> T:
    """Return `result`, unless it is a broken image.

    Raises:
        OSError: the image could not be read.
    """
    if isinstance(result, BrokenImage):
        raise OSError(f"cannot read the image {result.image}: {result.reason}")
    return result


def find_images(sources: Iterable[ImageSource]) -> list[ImageSource]:
    """Return the images among files, folders, PIL images and arrays.

    Folders are searched recursively, in sorted order. A batch is split into its images.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: not a regular file, a file without the suffix of an image, an array that is not
            an image, or no image at all.
        TypeError: something else.
    """
    images: list[ImageSource] = []
    for source in sources:
        if isinstance(source, Image.Image):
            images.append(source)
        elif isinstance(source, np.ndarray | Tensor):
            images += images_of_array(source)
        elif not isinstance(source, str | os.PathLike):
            kind = type(source).__name__
            raise TypeError(f"an image must be a path, a PIL image or an array, got {kind}")
        elif os.path.isdir(source):
            images += _images_below(Path(source))
        elif not os.path.exists(source):
            raise FileNotFoundError(f"no image {source}")
        elif not os.path.isfile(source):  # reading a pipe could wait forever
            raise ValueError(f"{source} must be a regular file or a folder")
        elif not str(source).lower().endswith(PICTURE_SUFFIXES):
            suffixes = " ".join(PICTURE_SUFFIXES)
            raise ValueError(f"{source} must be an image, {suffixes}, or a folder of them")
        else:
            images.append(str(source))
    if not images:
        raise ValueError("there must be one picture or more, got none")
    return images


def images_of_array(array: NDArray[Any] | Tensor) -> list[Image.Image]:
    """Return the image of an array, or the images of a batch.

    Args:
        array: a NumPy array (H, W, 3) or (N, H, W, 3) of uint8, or a tensor (3, H, W) or
            (N, 3, H, W) of uint8, or of floats in [0, 1], which are rounded to 8 bits.

    Raises:
        ValueError: another shape or type, or values out of range; states what is expected.
    """
    if isinstance(array, Tensor):
        form, channels, kinds = "a tensor ([N,] 3, H, W)", -3, "uint8 or float"
        right_type = array.dtype == torch.uint8 or array.is_floating_point()
    else:
        form, channels, kinds = "an array ([N,] H, W, 3)", -1, "uint8"
        right_type = array.dtype == np.uint8
    shape = tuple(array.shape)
    if len(shape) not in (3, 4) or shape[channels] != 3 or 0 in shape or not right_type:
        raise ValueError(f"an image must be {form} of {kinds}, got {shape} of {array.dtype}")
    if isinstance(array, Tensor):
        array = _bytes_of(array.detach().cpu())
    return [Image.fromarray(image) for image in (array if len(shape) == 4 else [array])]


def _bytes_of(images: Tensor) -> NDArray[np.uint8]:
    if images.is_floating_point():
        low, high = images.aminmax()
        if not (low >= 0 and high <= 1):  # NaN too
            raise ValueError(f"an image of floats must be in [0, 1], got {low:g} to {high:g}")
        images = (255 * images.float()).round().to(torch.uint8)
    return images.movedim(-3, -1).contiguous().numpy()


def _images_below(folder: Path) -> list[str]:
    found = find_pictures(folder)
    if not found.pictures:
        raise ValueError(f"no image in the folder {folder}: {reason_for_none(found)}")
    return [os.path.join(folder, path) for path in found.pictures]


def path_of(source: ImageSource) -> str:
    """Return the path of an image; empty for an image in memory."""
    return str(source) if isinstance(source, str | os.PathLike) else ""


def open_image(source: ImageSource) -> Image.Image | BrokenImage:
    """Return an image in RGB, read as evaluations read it, or the reason why it is broken."""
    if isinstance(source, str | os.PathLike):
        image = image_or_reason(str(source))
        return BrokenImage(str(source), image) if isinstance(image, str) else image
    try:
        if isinstance(source, np.ndarray | Tensor):
            source, *others = images_of_array(source)
            if others:
                raise ValueError(f"it is a batch of {1 + len(others)} images")
        if source.mode[0] in "FI":  # Pillow would clip values outside of 0..255
            kind = f"its pixels ({source.mode}) have no known range"
            raise ValueError(f"{kind}: give 8 bits a channel")
        return source.convert("RGB")
    except BROKEN as error:
        return BrokenImage("", f"{type(error).__name__}: {error}")


def load_batches(
    sources: Iterable[ImageSource], transform: Callable[[Image.Image], Tensor], *, batch_size: int
) -> Iterator[list[tuple[str, Tensor | BrokenImage]]]:
    """Yield batches of (path, tensor (3, R, R) or broken image), in the order of the sources."""

    def load(source: ImageSource) -> tuple[str, Tensor | BrokenImage]:
        image = open_image(source)
        return path_of(source), image if isinstance(image, BrokenImage) else transform(image)

    remaining = iter(sources)
    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL while it decodes
        while batch := list(islice(remaining, batch_size)):
            yield list(pool.map(load, batch))
