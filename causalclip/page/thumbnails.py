"""Small pictures of test images as data URIs; an image that is not there has none."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from PIL import Image, UnidentifiedImageError

SIDE = 96
"""Pixels of the longer side of a tile; smaller images stay as they are."""
QUALITY = 75


def thumbnail(path: str | Path, *, side: int = SIDE) -> tuple[str, str]:
    """A JPEG data URI, and an empty reason; or no URI, and why there is none.

    Args:
        path: of the image.
        side: pixels of its longer side at most.
    """
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((side, side))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=QUALITY)
    except FileNotFoundError:
        return "", "no such file"
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        return "", f"not readable ({type(error).__name__})"
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(), ""


def embedded_json(value: object) -> str:
    """JSON for a <script> element: no `<` in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
