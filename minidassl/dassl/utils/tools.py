"""Folders, JSON, images, downloads, seeds and the description of this machine."""

from __future__ import annotations

import json
import os
import os.path as osp
import platform
import random
import stat
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from causalclip.files.atomic import replacing


def mkdir_if_missing(dirname: str) -> None:
    """Create a folder and its parents; an existing one, or an empty name, is fine."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Return whether `fpath` is a file, with a warning when it is not."""
    is_file = osp.isfile(fpath)
    if not is_file:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return is_file


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    """List a folder without its dot files, sorted by name when `sort`."""
    items = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(items) if sort else items


def read_json(fpath: str) -> Any:
    """Read a UTF-8 JSON file; raise ValueError, which names the file, if it is invalid."""
    with open(fpath, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f'"{fpath}" is not valid JSON: {error}') from error


def write_json(obj: Any, fpath: str) -> None:
    """Write a JSON file (indent 4) atomically."""
    with replacing(fpath) as part:
        part.write_text(json.dumps(obj, indent=4, separators=(",", ": ")), encoding="utf-8")


def download_url(url: str, dst: str) -> None:
    """Download `url` to the file `dst` atomically, with a progress bar."""
    mkdir_if_missing(osp.dirname(dst))
    torch.hub.download_url_to_file(url, dst)


# Errors of Pillow and its codecs on bad bytes, and on more than twice Image.MAX_IMAGE_PIXELS.
_UNREADABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, RuntimeError, LookupError, TypeError),
    *(ArithmeticError, struct.error, zlib.error, Image.DecompressionBombError),
)
_ORIENTATION = 0x0112
_MOST_ELONGATED = 1000  # longer / shorter side: a transform resizes the shorter to about 224 pixels


def read_image(path: str) -> Image.Image:
    """Read an image as RGB; warn about an EXIF orientation, which is not applied.

    torchvision's and Dassl's loaders do not apply it either. 16-bit grey keeps its upper 8 bits;
    Pillow's own conversion would make it white.

    Raises:
        OSError: missing (FileNotFoundError), no regular file, damaged, too large or elongated, or
            of pixels whose range is unknown; names the file.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is no regular file")
        with Image.open(path) as image:
            if max(image.size) > _MOST_ELONGATED * min(image.size):
                raise ValueError(
                    f"one side must be at most {_MOST_ELONGATED} times the other, got "
                    f"{image.width} x {image.height} pixels"
                )
            if _is_turned(image):
                warnings.warn(
                    "some images have an EXIF orientation: they are read as they are stored, as "
                    "torchvision's and Dassl's loaders do; turn the files themselves where that "
                    "matters",
                    stacklevel=2,
                )
            return _as_rgb(image)
    except FileNotFoundError:
        raise FileNotFoundError(f'no image at "{path}"') from None
    except _UNREADABLE as error:
        raise OSError(f'cannot read the image "{path}": {error}') from error


def _is_turned(image: Image.Image) -> bool:
    """Return whether an image has an EXIF orientation; False if it cannot be read."""
    try:
        return "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1
    except _UNREADABLE:
        return False


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        pixels = np.asarray(image).astype(np.uint16)
        return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "I"):  # Pillow would clip values outside of 0..255
        raise ValueError(
            f"its pixels are {'floats' if image.mode == 'F' else '32-bit integers'}, of no known "
            "range: save it with 8 or 16 bits"
        )
    return image.convert("RGB")


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices); 0 is a seed like any other."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info() -> str:
    """Return the versions and devices that results depend on, one per line."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {
        "Python": platform.python_version(),
        "OS": platform.platform(),
        "CPU": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "CUDA devices": ", ".join(devices) or "none",
        "PyTorch": torch.__version__,
        "CUDA of PyTorch": torch.version.cuda or "none",
        "NumPy": np.__version__,
        "Pillow": PIL.__version__,
    }
    return "\n".join(f"{name}: {fact}" for name, fact in facts.items())
