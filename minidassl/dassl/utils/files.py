"""Small file operations: folders, JSON, images, listings, downloads, and atomic replacement."""

from __future__ import annotations

import json
import os
import os.path as osp
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from PIL import Image
from tqdm import tqdm


def mkdir_if_missing(dirname: str) -> None:
    """Create a folder and its parents; an existing one, or an empty name, is fine."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Return whether `fpath` is a file, with a warning when it is not."""
    found = osp.isfile(fpath)
    if not found:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return found


@contextmanager
def replacing(fpath: str, mode: str = "wb", **options: Any) -> Iterator[IO]:
    """Open a temporary neighbour of `fpath` that takes its place once it is on the disk, whole.

    A failure or a kill on the way leaves the previous file as it was. For this toolkit's own use;
    causalclip, another distribution that need not find this one, has its own in files/atomic.py.
    """
    partial = fpath + ".partial"
    try:
        with open(partial, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, fpath)
    except BaseException:
        if osp.exists(partial):
            os.remove(partial)
        raise


def read_json(fpath: str) -> Any:
    """Read a UTF-8 JSON file.

    Raises:
        ValueError: not JSON; names the file.
    """
    with open(fpath, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f'"{fpath}" is not valid JSON: {error}') from error


def write_json(obj: Any, fpath: str) -> None:
    """Write a JSON file (indent 4), whole or not at all."""
    mkdir_if_missing(osp.dirname(fpath))
    with replacing(fpath, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


def read_image(path: str) -> Image.Image:
    """Read an image as RGB, its pixels as they are stored: an EXIF orientation is not applied.

    So torchvision's and Dassl's loaders do, and the family's results were made; it is said once.
    16-bit grey keeps its upper 8 bits, where Pillow's own conversion would make it white.

    Raises:
        OSError: missing (FileNotFoundError), damaged, too large, or of a kind of pixels that has no
            one meaning as RGB; names the file.
    """
    try:
        with Image.open(path) as image:
            if "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1:
                warnings.warn(_TURNED, stacklevel=2)
            return _as_rgb(image)
    except FileNotFoundError:
        raise FileNotFoundError(f'no image at "{path}"') from None
    except _UNREADABLE as error:
        raise OSError(f'cannot read the image "{path}": {error}') from error


# What Pillow raises on bad bytes, and on more pixels than Image.MAX_IMAGE_PIXELS allows twice.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_ORIENTATION = 0x0112
_TURNED = (
    "some images have an EXIF orientation: they are read as they are stored, as torchvision's and "
    "Dassl's loaders do; turn the files themselves where that matters"
)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        pixels = np.asarray(image).astype(np.uint16)
        return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "I"):  # Pillow would cut off what is outside 0..255
        raise ValueError(
            f"its pixels are {'floats' if image.mode == 'F' else '32-bit integers'}, of no known "
            "range: save it with 8 or 16 bits"
        )
    return image.convert("RGB")


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    """List a folder without its dot files, sorted by name when `sort`."""
    items = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(items) if sort else items


def download_url(url: str, dst: str) -> None:
    """Download `url` to the file `dst` with a progress bar; `dst` appears only when whole."""
    mkdir_if_missing(osp.dirname(dst))
    with urllib.request.urlopen(url) as response, replacing(dst) as file:
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=osp.basename(dst)) as bar:
            while block := response.read(1 << 20):
                file.write(block)
                bar.update(len(block))
