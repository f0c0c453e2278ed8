"""Deterministic pictures of digits and shapes, drawn with Pillow and NumPy alone.

Everything is a function of its arguments and of a `numpy.random.Generator`; variant and invariant
factors are dataclass fields, so that an exact interventional twin is a `replace()`.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 32
_SUPERSAMPLE = 4

DIGIT_NAMES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip
SHAPES = (
    "arrow", "circle", "crescent", "cross", "heart", "hexagon", "ring", "square", "star",
    "triangle",
)  # fmt: skip
BACKGROUNDS = (
    "grass", "water", "sand", "snow", "brick", "wood", "night", "sunset", "stone", "cloth",
)  # fmt: skip
TEXTURES = ("plain", "striped", "dotted", "speckled")
STYLES = ("flat", "sketch", "neon", "watercolour")
COLOURS = {
    "red": (205, 40, 40),
    "green": (40, 150, 60),
    "blue": (45, 80, 200),
    "yellow": (235, 205, 50),
    "purple": (140, 60, 170),
    "orange": (235, 130, 35),
    "pink": (235, 130, 180),
    "cyan": (60, 195, 205),
    "white": (240, 240, 240),
    "black": (30, 30, 30),
}

# ---------------------------------------------------------------------------------------------
# noise and filters on float arrays
# ---------------------------------------------------------------------------------------------


@cache
def _blur_matrix(size: int, sigma: float) -> np.ndarray:
    """The Gaussian blur of one axis as a (size, size) matrix, edges repeated."""
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((size, size), np.float32)
    for offset, tap in zip(offsets, taps / taps.sum(), strict=True):
        np.add.at(matrix, (np.arange(size), np.clip(np.arange(size) + offset, 0, size - 1)), tap)
    return matrix


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of the first two axes of a square picture."""
    size = len(image)
    matrix = _blur_matrix(size, sigma)
    rows = (matrix @ image.reshape(size, -1)).reshape(image.shape)
    return (matrix @ rows.swapaxes(0, 1).reshape(size, -1)).reshape(image.shape).swapaxes(0, 1)


def _clouds(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise in about [-1, 1], (size, size): `cells` random values a side, interpolated."""
    coarse = rng.uniform(-1.0, 1.0, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def _grain(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.standard_normal((size, size)).astype(np.float32)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column coordinates of a (size, size) picture in units of a 32nd of its side."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (32.0 / size)
    return axis[:, None], axis[None, :]


def _solid(size: int, colour: tuple[float, ...] | np.ndarray) -> np.ndarray:
    image = np.empty((size, size, 3), np.float32)
    image[:] = colour
    return image


def _mix(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    return below + (above - below) * opacity[..., None]


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _edge(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Band around the boundary of a mask, 1 on the boundary itself."""
    soft = _blur(mask, sigma)
    return np.clip(4.0 * soft * (1.0 - soft), 0.0, 1.0)


# ---------------------------------------------------------------------------------------------
# digits: masks
# ---------------------------------------------------------------------------------------------

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
def _font(name: str, height: int) -> ImageFont.FreeTypeFont:
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
    canvas = size * _SUPERSAMPLE
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
    canvas = size * _SUPERSAMPLE
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


# ---------------------------------------------------------------------------------------------
# digits: looks
# ---------------------------------------------------------------------------------------------


def _hue(rng: np.random.Generator, saturation: float, value: float) -> np.ndarray:
    return 255.0 * np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


# A stroke's colour is float RGB, or None for one of the look's own; scan and negative have none.
Colour = np.ndarray | None


def _scan(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    return _solid(len(mask), (255, 255, 255)) * (1.0 - mask[..., None])


def _negative(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    return 255.0 - _scan(mask, colour, rng)


def _ink(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    paper = _solid(size, rng.uniform((235, 225, 200), (255, 250, 235)))
    paper += 4.0 * _clouds(rng, size, 5)[..., None]
    inks = ((25, 25, 60), (20, 20, 25), (70, 30, 25), (30, 40, 110))
    pressure = np.clip(0.85 + 0.2 * _clouds(rng, size, 6), 0.0, 1.0)
    ink = inks[rng.integers(len(inks))] if colour is None else 0.6 * colour
    return _mix(paper, _solid(size, ink), mask * pressure)


def _chalk(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    boards = ((35, 60, 48), (40, 42, 46), (28, 45, 70))
    board = _solid(size, boards[rng.integers(len(boards))])
    board += (9.0 * _clouds(rng, size, 6) + 5.0 * _grain(rng, size))[..., None]
    chalks = ((238, 238, 230), (240, 225, 150), (240, 190, 190))
    grip = np.clip(0.72 + 0.3 * _grain(rng, size), 0.0, 1.0)
    chalk = chalks[rng.integers(len(chalks))] if colour is None else 0.55 * colour + 115.0
    return _mix(board, _solid(size, chalk), mask * grip)


def _neon(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    wall = _solid(size, rng.uniform((5, 5, 15), (30, 20, 50)))
    if colour is None:
        tube = _hue(rng, rng.uniform(0.75, 1.0), 1.0)
    else:
        tube = 255.0 * colour / colour.max()
    halo = np.clip(_blur(mask, 2.6 * size / 32) * 0.9, 0.0, 1.0)
    image = _mix(wall, _solid(size, tube * 0.75), halo)
    # The tube itself is the rim of the stroke: a neon sign is a line, not an area.
    image = _mix(image, _solid(size, tube), 0.55 * mask)
    return _mix(image, _solid(size, 0.5 * tube + 127.0), np.clip(1.3 * mask - 0.75, 0.0, 1.0))


def _noisy_paper(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    if colour is None:
        paper = _solid(size, rng.uniform((165, 140, 95), (205, 185, 145)))
    else:  # a yellow stroke would not show on yellowed paper
        paper = _solid(size, rng.uniform((185, 180, 165), (220, 215, 205)))
    paper += (32.0 * _clouds(rng, size, 4))[..., None]
    rows, _ = _grid(size)
    ruled = (np.abs((rows + rng.uniform(0, 8)) % 8.0 - 4.0) < 0.5) * 0.35
    paper = _mix(paper, _solid(size, (110, 120, 150)), np.broadcast_to(ruled, (size, size)))
    faded = np.clip((0.62 if colour is None else 0.72) + 0.3 * _clouds(rng, size, 4), 0.0, 1.0)
    pencil = rng.uniform((40, 30, 30), (80, 60, 60)) if colour is None else 0.5 * colour
    image = _mix(paper, _solid(size, pencil), mask * faded)
    return image + (17.0 * _grain(rng, size))[..., None]


def _paint(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    if colour is None:
        dark, light = _hue(rng, 0.8, rng.uniform(0.25, 0.5)), _hue(rng, 0.4, rng.uniform(0.8, 1.0))
        above, below = (dark, light) if rng.random() < 0.5 else (light, dark)
    elif rng.random() < 0.5:
        above, below = 0.5 * colour + 115.0, _hue(rng, 0.4, 0.3)
    else:
        above, below = 0.6 * colour, _hue(rng, 0.4, 1.0)
    image = _mix(_solid(size, below), _solid(size, above), mask)
    return image + (10.0 * _clouds(rng, size, 6))[..., None]


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
    """Colours a coverage mask (size, size) in one of `LOOKS`: uint8 (size, size, 3).

    colour: of the stroke, one of `COLOURS`; None leaves it to the look. `COLOURLESS_LOOKS` have
    none.
    """
    if look not in _LOOKS:
        raise ValueError(f"look must be one of {', '.join(LOOKS)}, got {look!r}")
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"colour must be one of {', '.join(COLOURS)}, got {colour!r}")
    stroke = None if colour is None else np.asarray(COLOURS[colour], np.float32)
    return _to_uint8(_LOOKS[look](mask, stroke, rng))


# ---------------------------------------------------------------------------------------------
# shapes: factors
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShapeFactors:
    """Everything a picture of a shape depends on.

    `shape` is the class; `x`, `y` (offsets), `scale` (radius, as a share of half the side) and
    `rotation` (degrees) are its pose. The other fields are the variant factors.
    """

    shape: str
    x: float
    y: float
    scale: float
    rotation: float
    colour: str
    texture: str
    background: str
    style: str
    noise: int


INVARIANT_FACTORS = ("shape", "x", "y", "scale", "rotation")
VARIANT_FACTORS = ("colour", "texture", "background", "style", "noise")


def draw_pose(shape: str, rng: np.random.Generator) -> dict[str, float | str]:
    """The invariant factors of a random instance of a shape."""
    return {
        "shape": shape,
        "x": float(rng.uniform(-0.16, 0.16)),
        "y": float(rng.uniform(-0.16, 0.16)),
        "scale": float(rng.uniform(0.5, 0.8)),
        "rotation": float(rng.uniform(-25.0, 25.0)),
    }


def _other(rng: np.random.Generator, choices: tuple[str, ...], *taken: str) -> str:
    free = [choice for choice in choices if choice not in taken]
    return free[rng.integers(len(free))]


def draw_factors(
    shape: str, rng: np.random.Generator, *, style: str, background: str | None = None
) -> ShapeFactors:
    """A random instance of a shape; an open background is drawn uniformly."""
    pose = draw_pose(shape, rng)
    background = background or _other(rng, BACKGROUNDS)
    return ShapeFactors(
        **pose, colour=_other(rng, tuple(COLOURS)), texture=_other(rng, TEXTURES),
        background=background, style=style, noise=int(rng.integers(2**31)),
    )  # fmt: skip


def intervene(
    factors: ShapeFactors,
    rng: np.random.Generator,
    *,
    style: str | None = None,
    avoid: tuple[str, ...] = (),
) -> ShapeFactors:
    """The interventional twin: same shape and pose, every other factor set to another value.

    The style changes to `style`, or stays when None is given (a twin within one domain); `avoid`
    names further backgrounds the twin must not have.
    """
    return replace(
        factors,
        colour=_other(rng, tuple(COLOURS), factors.colour),
        texture=_other(rng, TEXTURES, factors.texture),
        background=_other(rng, BACKGROUNDS, factors.background, *avoid),
        style=style or factors.style,
        noise=int(rng.integers(2**31)),
    )


# ---------------------------------------------------------------------------------------------
# shapes: masks, backgrounds, textures, styles
# ---------------------------------------------------------------------------------------------


def _ngon(n: int, *, radius: float = 1.0, start: float = -90.0) -> np.ndarray:
    angles = np.deg2rad(start + 360.0 * np.arange(n) / n)
    return radius * np.stack([np.cos(angles), np.sin(angles)], 1)


def _star() -> np.ndarray:
    points = _ngon(10)
    points[1::2] *= 0.42
    return points


def _heart() -> np.ndarray:
    t = np.linspace(0.0, 2 * math.pi, 60, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], 1) / 15.5


def _cross() -> np.ndarray:
    arm, out = 0.3, 0.95
    corner = np.array([(arm, -out), (arm, -arm), (out, -arm)])
    turns = [np.array([[c, -s], [s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return np.concatenate([corner @ turn.T for turn in turns])


# Polygons in the unit disc; a second one of the same shape is a hole.
_POLYGONS: dict[str, tuple[np.ndarray, ...]] = {
    "arrow": (np.array([(-0.95, -0.22), (0.1, -0.22), (0.1, -0.65), (0.95, 0.0), (0.1, 0.65),
                        (0.1, 0.22), (-0.95, 0.22)]),),
    "circle": (_ngon(60, radius=0.9),),
    "crescent": (_ngon(60, radius=0.95), _ngon(60, radius=0.8) + (0.45, -0.1)),
    "cross": (_cross(),),
    "heart": (_heart(),),
    "hexagon": (_ngon(6, start=0.0),),
    "ring": (_ngon(60, radius=0.95), _ngon(60, radius=0.5)),
    "square": (_ngon(4, radius=1.1, start=45.0),),
    "star": (_star(),),
    "triangle": (_ngon(3) + (0.0, 0.15),),
}  # fmt: skip


def shape_mask(factors: ShapeFactors, *, size: int = SIZE) -> np.ndarray:
    """Coverage (size, size) in [0, 1]; depends on the invariant factors only."""
    if factors.shape not in _POLYGONS:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {factors.shape!r}")
    canvas = size * _SUPERSAMPLE
    angle = math.radians(factors.rotation)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    image = Image.new("L", (canvas, canvas))
    draw = ImageDraw.Draw(image)
    for polygon, fill in zip(_POLYGONS[factors.shape], (255, 0), strict=False):
        points = polygon @ turn.T * factors.scale + (1.0 + factors.x, 1.0 + factors.y)
        draw.polygon([tuple(p) for p in points * canvas / 2], fill=fill)
    return np.asarray(image.reduce(_SUPERSAMPLE), np.float32) / 255.0


def _bricks(size: int) -> np.ndarray:
    rows, columns = _grid(size)
    shifted = columns + 4.0 * (np.floor(rows / 5.0) % 2)
    return ((rows % 5.0 < 1.0) | (shifted % 8.0 < 1.0)).astype(np.float32)


def _tiles(size: int) -> np.ndarray:
    rows, columns = _grid(size)
    return ((rows % 10.0 < 1.0) | (columns % 10.0 < 1.0)).astype(np.float32)


def _checks(size: int, phase: float) -> np.ndarray:
    rows, columns = _grid(size)
    return np.sign(np.sin(rows * 0.8 + phase)) + np.sign(np.sin(columns * 0.8 + phase))


def background_image(background: str, rng: np.random.Generator, *, size: int = SIZE) -> np.ndarray:
    """A textured background, float (size, size, 3) in 0..255."""
    if background not in _BACKGROUNDS:
        raise ValueError(f"background must be one of {', '.join(BACKGROUNDS)}, got {background!r}")
    colour, relief = _BACKGROUNDS[background]
    clouds, grain = _clouds(rng, size, 6), _grain(rng, size)
    phase = rng.uniform(0.0, 6.28)
    ground = _solid(size, colour) + relief(size, clouds, grain, phase)[..., None]
    if background == "sunset":  # from the colour above to orange below
        rows, _ = _grid(size)
        ground += (rows / 32.0)[..., None] * np.float32((155.0, 95.0, -55.0))
    return ground


# Colour, and relief from (size, clouds, grain, phase).
_BACKGROUNDS = {
    "grass": ((70, 130, 50), lambda n, c, g, p: 20 * c + 20 * g),
    "water": ((50, 110, 175), lambda n, c, g, p: 8 * c + 22 * np.sin(_grid(n)[0] + 2 * c + p)),
    "sand": ((215, 190, 130), lambda n, c, g, p: 8 * c + 14 * g),
    "snow": ((228, 234, 244), lambda n, c, g, p: 8 * c + 5 * g),
    "brick": ((150, 70, 55), lambda n, c, g, p: 8 * g + 75 * _bricks(n)),
    "wood": ((145, 98, 58), lambda n, c, g, p: 20 * np.sin(_grid(n)[1] * 0.9 + 3 * c + p) + 6 * g),
    "night": ((18, 20, 45), lambda n, c, g, p: 4 * c + 190 * (g > 2.3)),
    "sunset": ((95, 55, 125), lambda n, c, g, p: 8 * c),
    "stone": ((135, 135, 138), lambda n, c, g, p: 14 * c + 6 * g - 50 * _tiles(n)),
    "cloth": ((150, 120, 165), lambda n, c, g, p: 28 * _checks(n, p)),
}


# Relief from (size, grain, phase).
_RELIEFS = {
    "plain": lambda n, g, p: np.zeros((n, n), np.float32),
    "striped": lambda n, g, p: 45 * np.sign(np.sin(sum(_grid(n)) * 0.9 + p)),
    "dotted": lambda n, g, p: 60 * (_waves(n, 0, p) * _waves(n, 1, p) > 0.3),
    "speckled": lambda n, g, p: 30 * g,
}


def _waves(size: int, axis: int, phase: float) -> np.ndarray:
    return np.sin(_grid(size)[axis] * 1.4 + phase)


def _textured(factors: ShapeFactors, rng: np.random.Generator, size: int) -> np.ndarray:
    """The surface of the shape, float (size, size, 3)."""
    colour = np.asarray(COLOURS[factors.colour], np.float32)
    relief = _RELIEFS[factors.texture](size, _grain(rng, size), rng.uniform(0.0, 6.28))
    sign = -1.0 if colour.mean() > 128 else 1.0
    return _solid(size, colour) + (sign * relief)[..., None]


def _flat(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    return _mix(ground, surface, mask)


def _sketch(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    size = len(mask)
    paper = 238.0 + 0.3 * (ground.mean(-1) - ground.mean()) + 4.0 * _grain(rng, size)
    paper = _mix(np.repeat(paper[..., None], 3, -1), ground, np.full((size, size), 0.15))
    hatched = 0.22 * mask * (surface.mean(-1) < surface.mean())
    image = _mix(paper, 0.6 * surface, hatched)
    pencil = np.clip(_edge(mask, 0.7 * size / 32) * (0.85 + 0.25 * _grain(rng, size)), 0.0, 1.0)
    return _mix(image, 0.35 * surface + 10.0, pencil)


def _neon_shape(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    size = len(mask)
    colour = surface.mean((0, 1)) + 25.0
    tube = _solid(size, 255.0 * colour / colour.max())
    rim = _edge(mask, 0.8 * size / 32)
    halo = np.clip(1.1 * _blur(rim, 2.2 * size / 32), 0.0, 1.0)
    image = _mix(0.3 * ground, tube * 0.8, halo)
    return _mix(image, 0.6 * tube + 102.0, rim)


def _watercolour(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    size = len(mask)
    paper = 0.45 * _blur(ground, 1.5 * size / 32) + 138.0
    wet = _blur(mask, 0.9 * size / 32)
    bleeding = np.clip((wet - 0.5 + 0.22 * _clouds(rng, size, 9)) * 3.0 + 0.5, 0.0, 1.0)
    pigment = 0.65 * _blur(surface, 1.2 * size / 32) + 80.0
    wash = np.clip(0.68 + 0.25 * _clouds(rng, size, 5), 0.0, 1.0)
    image = _mix(paper, pigment, bleeding * wash)
    return _mix(image, 0.6 * pigment, 0.35 * _edge(bleeding, 0.6 * size / 32))


_STYLES = {
    "flat": _flat,
    "sketch": _sketch,
    "neon": _neon_shape,
    "watercolour": _watercolour,
}


def render_shape(factors: ShapeFactors, *, size: int = SIZE) -> np.ndarray:
    """The picture of these factors, uint8 (size, size, 3); equal factors give equal pixels."""
    if factors.style not in _STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {factors.style!r}")
    rng = np.random.default_rng(factors.noise)
    ground = background_image(factors.background, rng, size=size)
    surface = _textured(factors, rng, size)
    mask = shape_mask(factors, size=size)
    return _to_uint8(_STYLES[factors.style](mask, surface, ground, rng))
