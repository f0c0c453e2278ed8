"""Digits as coverage masks: pen strokes, printed glyphs, and scans made coarse or large."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from causalclip.data.rendering.drawing import SIZE, SUPERSAMPLE

DIGIT_NAMES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip

# Pen paths in a unit box, x to the right and y down; each digit has the ways people write it.
_STROKES: dict[int, tuple[tuple[tuple[tuple[float, float], ...], ...], ...]] = {
    0: (
        (((0.5, 0.0), (0.12, 0.2), (0.05, 0.55), (0.25, 0.95), (0.6, 0.98), (0.9, 0.65),
          (0.88, 0.25), (0.5, 0.0)),),
    ),
    1: (
        (((0.5, 0.0), (0.5, 1.0)),),
        (((0.2, 0.3), (0.55, 0.0), (0.55, 1.0)),),
        (((0.25, 0.25), (0.52, 0.0), (0.52, 1.0)), ((0.2, 1.0), (0.85, 1.0))),
    ),
    2: (
        (((0.1, 0.2), (0.4, 0.0), (0.8, 0.15), (0.75, 0.45), (0.4, 0.75), (0.08, 1.0),
          (0.5, 0.95), (0.95, 1.0)),),
        (((0.1, 0.25), (0.45, 0.0), (0.85, 0.25), (0.55, 0.65), (0.2, 0.95), (0.1, 0.8),
          (0.35, 0.75), (0.6, 0.95), (0.95, 0.9)),),
    ),
    3: (
        (((0.1, 0.1), (0.5, 0.0), (0.85, 0.2), (0.4, 0.47), (0.85, 0.72), (0.5, 1.0),
          (0.08, 0.9)),),
        (((0.1, 0.02), (0.5, 0.0), (0.9, 0.03), (0.45, 0.4), (0.85, 0.65), (0.6, 0.98),
          (0.1, 0.92)),),
    ),
    4: (
        (((0.6, 0.0), (0.3, 0.35), (0.05, 0.65), (0.5, 0.65), (0.95, 0.62)),
         ((0.65, 0.35), (0.62, 0.7), (0.6, 1.0))),
        (((0.15, 0.0), (0.1, 0.3), (0.1, 0.5), (0.5, 0.5), (0.85, 0.48)),
         ((0.85, 0.0), (0.83, 0.5), (0.8, 1.0))),
    ),
    5: (
        (((0.85, 0.02), (0.5, 0.02), (0.2, 0.04)),
         ((0.2, 0.04), (0.15, 0.4), (0.5, 0.35), (0.88, 0.6), (0.65, 0.95), (0.1, 0.95))),
    ),
    6: (
        (((0.7, 0.0), (0.3, 0.3), (0.1, 0.7), (0.4, 1.0), (0.85, 0.8), (0.6, 0.52),
          (0.15, 0.7)),),
        (((0.45, 0.0), (0.15, 0.4), (0.15, 0.85), (0.55, 1.0), (0.85, 0.75), (0.5, 0.55),
          (0.15, 0.8)),),
    ),
    7: (
        (((0.08, 0.05), (0.5, 0.03), (0.92, 0.05), (0.65, 0.5), (0.45, 1.0)),),
        (((0.08, 0.08), (0.5, 0.03), (0.9, 0.05), (0.6, 0.5), (0.4, 1.0)),
         ((0.25, 0.52), (0.85, 0.48))),
    ),
    8: (
        (((0.55, 0.45), (0.2, 0.25), (0.5, 0.0), (0.82, 0.2), (0.5, 0.48), (0.12, 0.78),
          (0.5, 1.0), (0.88, 0.75), (0.5, 0.46)),),
        (((0.85, 0.12), (0.45, 0.0), (0.2, 0.22), (0.5, 0.47), (0.82, 0.75), (0.48, 1.0),
          (0.18, 0.75), (0.5, 0.48), (0.85, 0.12)),),
    ),
    9: (
        (((0.85, 0.25), (0.5, 0.0), (0.15, 0.25), (0.45, 0.5), (0.85, 0.25), (0.82, 0.6),
          (0.6, 1.0)),),
        (((0.8, 0.3), (0.5, 0.02), (0.15, 0.22), (0.4, 0.48), (0.8, 0.3), (0.85, 0.7),
          (0.5, 1.0), (0.12, 0.92)),),
    ),
}  # fmt: skip

_FONT_FILES = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf", "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf", "DejaVuSansMono-Oblique.ttf",
)  # fmt: skip
FONTS = ("default", *_FONT_FILES)


@cache
def _font(name: str, height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if name == "default":
        return ImageFont.load_default(height)
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), height)


def _smooth(points: np.ndarray, steps: int = 8) -> np.ndarray:
    """Catmull-Rom spline through control points (n, 2) -> ((n - 1) * steps + 1, 2)."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None]
    pieces = []
    for p0, p1, p2, p3 in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        bend = 2 * p0 - 5 * p1 + 4 * p2 - p3
        cubic = -p0 + 3 * p1 - 3 * p2 + p3
        pieces.append(p1 + 0.5 * t * ((p2 - p0) + t * (bend + t * cubic)))
    return np.concatenate([*pieces, points[-1:]])


def _affine(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Random rotation, slant and aspect as a 2 x 2 matrix; strength 0 is the identity."""
    angle, slant = rng.normal(0.0, 0.14 * strength), rng.normal(0.0, 0.2 * strength)
    wide = math.exp(rng.normal(0.0, 0.18 * strength))
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) @ np.array([[wide, -slant], [0.0, 1.0]])


def font_mask(digit: int, rng: np.random.Generator, *, size: int = SIZE) -> np.ndarray:
    """Coverage (size, size) in [0, 1] of a printed digit in a random font, size and place."""
    canvas = size * SUPERSAMPLE
    font = _font(FONTS[rng.integers(len(FONTS))], canvas)
    image = Image.new("L", (canvas, canvas))
    draw = ImageDraw.Draw(image)
    weight = int(rng.integers(0, canvas // 24))
    draw.text((canvas / 2, canvas / 2), str(digit), fill=255, font=font, anchor="mm",
              stroke_width=weight)  # fmt: skip
    return _place(image, rng, size)


def stroke_mask(
    digit: int, rng: np.random.Generator, *, size: int = SIZE, wobble: float = 1.0
) -> np.ndarray:
    """Coverage (size, size) in [0, 1] of a digit drawn by a jittered, splined pen path."""
    canvas = size * SUPERSAMPLE
    variants = _STROKES[digit]
    paths = variants[rng.integers(len(variants))]
    image = Image.new("L", (canvas, canvas))
    draw = ImageDraw.Draw(image)
    pen = rng.uniform(0.09, 0.2) * canvas * 0.6
    aspect = rng.uniform(0.6, 0.95)
    for path in paths:
        points = np.asarray(path) + rng.normal(0.0, 0.035 * wobble, (len(path), 2))
        points = _smooth((points - 0.5) * (aspect, 1.0) * 0.62 + 0.5) * canvas
        draw.line([tuple(p) for p in points], fill=255, width=round(pen), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return _place(image, rng, size, strength=wobble)


def _place(
    image: Image.Image, rng: np.random.Generator, size: int, *, strength: float = 1.0
) -> np.ndarray:
    """Warps a glyph, fits its box into the picture with a random margin, and averages down."""
    canvas = image.width
    matrix = _affine(rng, strength)
    box = np.array(image.getbbox(), float)
    corners = np.array([(x, y) for x in box[[0, 2]] for y in box[[1, 3]]])
    centre = corners.mean(0)
    extent = np.abs((corners - centre) @ matrix.T).max(0)
    fill = rng.uniform(0.66, 0.98)
    zoom = fill * canvas / 2 / extent.max()
    free = np.maximum(canvas / 2 - extent * zoom, 0.0)
    target = canvas / 2 + rng.uniform(-0.6, 0.6, 2) * free
    inverse = np.linalg.inv(matrix * zoom)
    offset = centre - inverse @ target
    data = (*inverse[0], offset[0], *inverse[1], offset[1])
    warped = image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.asarray(warped.reduce(canvas // size), np.float32) / 255.0


def coarse(mask: np.ndarray, *, cells: int = 8) -> np.ndarray:
    """A mask as a `cells` x `cells` scanner would see it: block means, 17 levels, interpolated."""
    size = mask.shape[0]
    blocks = mask.reshape(cells, size // cells, cells, size // cells).mean((1, 3))
    return enlarge(np.rint(blocks * 16.0), size=size)


def enlarge(scan: np.ndarray, *, size: int = SIZE) -> np.ndarray:
    """A small scan of counts 0..16 as a smooth coverage (size, size) in [0, 1]."""
    image = Image.fromarray(np.asarray(scan, np.float32) / 16.0)
    return np.clip(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)), 0.0, 1.0)
