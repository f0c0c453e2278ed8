"""Digits as coverage masks (pen strokes, printed glyphs, scans), and the looks that colour them.

Equal arguments and an equal generator give equal pixels.
"""

from __future__ import annotations

import colorsys
import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from causalclip.data.rendering.drawing import (
    COLOURS,
    ROWS,
    SIZE,
    SUPERSAMPLE,
    blur,
    clouds,
    grain,
    mix,
    solid,
    to_uint8,
)

DIGIT_NAMES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip

# Pen paths in a unit box, x to the right and y down; each digit has one or more ways to write it.
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
    import matplotlib  # takes half a second, and only drawing needs its fonts

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), height)


def _smooth(points: np.ndarray) -> np.ndarray:
    """Return a Catmull-Rom spline through control points (n, 2) -> ((n - 1) * 8 + 1, 2)."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0.0, 1.0, 8, endpoint=False)[:, None]
    pieces = []
    for p0, p1, p2, p3 in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        bend = 2 * p0 - 5 * p1 + 4 * p2 - p3
        cubic = -p0 + 3 * p1 - 3 * p2 + p3
        pieces.append(p1 + 0.5 * t * ((p2 - p0) + t * (bend + t * cubic)))
    return np.concatenate([*pieces, points[-1:]])


def _affine(rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation, slant and aspect as a matrix (2, 2)."""
    angle, slant = rng.normal(0.0, 0.14), rng.normal(0.0, 0.2)
    wide = math.exp(rng.normal(0.0, 0.18))
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]]) @ np.array([[wide, -slant], [0.0, 1.0]])


def font_mask(digit: int, rng: np.random.Generator) -> np.ndarray:
    """Return the coverage (SIZE, SIZE) in [0, 1] of a digit in a random font, size and place."""
    canvas = SIZE * SUPERSAMPLE
    font = _font(FONTS[rng.integers(len(FONTS))], canvas)
    image = Image.new("L", (canvas, canvas))
    draw = ImageDraw.Draw(image)
    weight = int(rng.integers(0, canvas // 24))
    draw.text((canvas / 2, canvas / 2), str(digit), fill=255, font=font, anchor="mm",
              stroke_width=weight)  # fmt: skip
    return _place(image, rng)


def stroke_mask(digit: int, rng: np.random.Generator) -> np.ndarray:
    """Return the coverage (SIZE, SIZE) in [0, 1] of a digit drawn by a jittered pen path."""
    canvas = SIZE * SUPERSAMPLE
    variants = _STROKES[digit]
    paths = variants[rng.integers(len(variants))]
    image = Image.new("L", (canvas, canvas))
    draw = ImageDraw.Draw(image)
    pen = rng.uniform(0.09, 0.2) * canvas * 0.6
    aspect = rng.uniform(0.6, 0.95)
    for path in paths:
        points = np.asarray(path) + rng.normal(0.0, 0.035, (len(path), 2))
        points = _smooth((points - 0.5) * (aspect, 1.0) * 0.62 + 0.5) * canvas
        draw.line([tuple(p) for p in points], fill=255, width=round(pen), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return _place(image, rng)


def _place(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Warp a glyph, fit its box into the picture with a random margin, and average down."""
    canvas = image.width
    matrix = _affine(rng)
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
    return np.asarray(warped.reduce(SUPERSAMPLE), np.float32) / 255.0


def coarse(mask: np.ndarray) -> np.ndarray:
    """Return a mask (SIZE, SIZE) as an 8 x 8 scanner would see it: block means, 17 levels."""
    blocks = mask.reshape(8, SIZE // 8, 8, SIZE // 8).mean((1, 3))
    return enlarge(np.rint(blocks * 16.0))


def enlarge(scan: np.ndarray) -> np.ndarray:
    """Return a scan (N, N) of counts 0..16 as a smooth coverage (SIZE, SIZE) in [0, 1]."""
    image = Image.fromarray(np.asarray(scan, np.float32) / 16.0)
    return np.clip(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)), 0.0, 1.0)


# Looks


def _hue(rng: np.random.Generator, saturation: float, value: float) -> np.ndarray:
    return 255.0 * np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


# Colour of a stroke as float RGB, or None to let the look choose; scan and negative ignore it.
Colour = np.ndarray | None


def _scan(mask: np.ndarray, _colour: Colour, _rng: np.random.Generator) -> np.ndarray:
    return solid((255, 255, 255)) * (1.0 - mask[..., None])


def _negative(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    return 255.0 - _scan(mask, colour, rng)


def _ink(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    paper = solid(rng.uniform((235, 225, 200), (255, 250, 235)))
    paper += 4.0 * clouds(rng, 5)[..., None]
    inks = ((25, 25, 60), (20, 20, 25), (70, 30, 25), (30, 40, 110))
    pressure = np.clip(0.85 + 0.2 * clouds(rng, 6), 0.0, 1.0)
    ink = inks[rng.integers(len(inks))] if colour is None else 0.6 * colour
    return mix(paper, solid(ink), mask * pressure)


def _chalk(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    boards = ((35, 60, 48), (40, 42, 46), (28, 45, 70))
    board = solid(boards[rng.integers(len(boards))])
    board += (9.0 * clouds(rng, 6) + 5.0 * grain(rng))[..., None]
    chalks = ((238, 238, 230), (240, 225, 150), (240, 190, 190))
    grip = np.clip(0.72 + 0.3 * grain(rng), 0.0, 1.0)
    chalk = chalks[rng.integers(len(chalks))] if colour is None else 0.55 * colour + 115.0
    return mix(board, solid(chalk), mask * grip)


def _neon(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    wall = solid(rng.uniform((5, 5, 15), (30, 20, 50)))
    if colour is None:
        tube = _hue(rng, rng.uniform(0.75, 1.0), 1.0)
    else:
        tube = 255.0 * colour / colour.max()
    halo = np.clip(blur(mask, 2.6) * 0.9, 0.0, 1.0)
    image = mix(wall, solid(tube * 0.75), halo)
    # The tube itself is the rim of the stroke: a neon sign is a line, not an area.
    image = mix(image, solid(tube), 0.55 * mask)
    return mix(image, solid(0.5 * tube + 127.0), np.clip(1.3 * mask - 0.75, 0.0, 1.0))


def _noisy_paper(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    if colour is None:
        paper = solid(rng.uniform((165, 140, 95), (205, 185, 145)))
    else:  # a yellow stroke would not show on yellowed paper
        paper = solid(rng.uniform((185, 180, 165), (220, 215, 205)))
    paper += (32.0 * clouds(rng, 4))[..., None]
    ruled = (np.abs((ROWS + rng.uniform(0, 8)) % 8.0 - 4.0) < 0.5) * 0.35
    paper = mix(paper, solid((110, 120, 150)), np.broadcast_to(ruled, (SIZE, SIZE)))
    faded = np.clip((0.62 if colour is None else 0.72) + 0.3 * clouds(rng, 4), 0.0, 1.0)
    pencil = rng.uniform((40, 30, 30), (80, 60, 60)) if colour is None else 0.5 * colour
    image = mix(paper, solid(pencil), mask * faded)
    return image + (17.0 * grain(rng))[..., None]


def _paint(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    if colour is None:
        dark, light = _hue(rng, 0.8, rng.uniform(0.25, 0.5)), _hue(rng, 0.4, rng.uniform(0.8, 1.0))
        above, below = (dark, light) if rng.random() < 0.5 else (light, dark)
    elif rng.random() < 0.5:
        above, below = 0.5 * colour + 115.0, _hue(rng, 0.4, 0.3)
    else:
        above, below = 0.6 * colour, _hue(rng, 0.4, 1.0)
    image = mix(solid(below), solid(above), mask)
    return image + (10.0 * clouds(rng, 6))[..., None]


_LOOKS = {
    "scan": _scan,
    "negative": _negative,
    "ink": _ink,
    "chalk": _chalk,
    "neon": _neon,
    "noisy_paper": _noisy_paper,
    "paint": _paint,
}
LOOKS = tuple(_LOOKS)
COLOURLESS_LOOKS = ("scan", "negative")
DIGIT_DOMAINS = ("ink", "chalk", "neon", "noisy_paper")
DIGIT_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "cyan")


def draw_look(
    mask: np.ndarray, look: str, rng: np.random.Generator, *, colour: str | None = None
) -> np.ndarray:
    """Colour a coverage mask (S, S) in one of `LOOKS`: uint8 (S, S, 3).

    Args:
        mask: the strokes, in [0, 1].
        look: the name of the look.
        rng: generator for the details of the look.
        colour: colour of the stroke, one of `COLOURS`; None lets the look choose.
            `COLOURLESS_LOOKS` ignore it.
    """
    stroke = None if colour is None else np.asarray(COLOURS[colour], np.float32)
    return to_uint8(_LOOKS[look](mask, stroke, rng))
