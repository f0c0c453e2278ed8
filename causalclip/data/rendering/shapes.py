"""Pictures of shapes: draw their factors, intervene on them, and render them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from causalclip.data.rendering.drawing import (
    COLOURS,
    COLUMNS,
    ROWS,
    SIZE,
    SUPERSAMPLE,
    blur,
    clouds,
    edge,
    grain,
    mix,
    solid,
    to_uint8,
)

SHAPES = (
    "arrow", "circle", "crescent", "cross", "heart", "hexagon", "ring", "square", "star",
    "triangle",
)  # fmt: skip
BACKGROUNDS = (
    "grass", "water", "sand", "snow", "brick", "wood", "night", "sunset", "stone", "cloth",
)  # fmt: skip
TEXTURES = ("plain", "striped", "dotted", "speckled")
STYLES = ("flat", "sketch", "neon", "watercolour")


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


def _other(rng: np.random.Generator, choices: tuple[str, ...], *taken: str) -> str:
    free = [choice for choice in choices if choice not in taken]
    return free[rng.integers(len(free))]


def draw_factors(
    shape: str, rng: np.random.Generator, *, style: str, background: str | None = None
) -> ShapeFactors:
    """Draw the factors of a shape; if no `background` is given, it is drawn uniformly."""
    pose = {
        "x": float(rng.uniform(-0.16, 0.16)),
        "y": float(rng.uniform(-0.16, 0.16)),
        "scale": float(rng.uniform(0.5, 0.8)),
        "rotation": float(rng.uniform(-25.0, 25.0)),
    }
    background = background or _other(rng, BACKGROUNDS)
    return ShapeFactors(
        shape, **pose, colour=_other(rng, tuple(COLOURS)), texture=_other(rng, TEXTURES),
        background=background, style=style, noise=int(rng.integers(2**31)),
    )  # fmt: skip


def intervene(
    factors: ShapeFactors, rng: np.random.Generator, *, avoid: tuple[str, ...] = ()
) -> ShapeFactors:
    """Return the interventional twin: same shape, pose and style, all other factors changed.

    `avoid` names further backgrounds the twin must not have.
    """
    return replace(
        factors,
        colour=_other(rng, tuple(COLOURS), factors.colour),
        texture=_other(rng, TEXTURES, factors.texture),
        background=_other(rng, BACKGROUNDS, factors.background, *avoid),
        noise=int(rng.integers(2**31)),
    )


# Backgrounds and textures: colours with a relief drawn from a generator


_SHIFTED = COLUMNS + 4.0 * (np.floor(ROWS / 5.0) % 2)
_BRICKS = ((ROWS % 5.0 < 1.0) | (_SHIFTED % 8.0 < 1.0)).astype(np.float32)
_TILES = ((ROWS % 10.0 < 1.0) | (COLUMNS % 10.0 < 1.0)).astype(np.float32)


def _checks(phase: float) -> np.ndarray:
    return np.sign(np.sin(ROWS * 0.8 + phase)) + np.sign(np.sin(COLUMNS * 0.8 + phase))


def background_image(background: str, rng: np.random.Generator) -> np.ndarray:
    """Return a textured background, float (SIZE, SIZE, 3) in 0..255."""
    colour, relief = _BACKGROUNDS[background]
    noise = clouds(rng, 6), grain(rng)
    phase = rng.uniform(0.0, 6.28)
    ground = solid(colour) + relief(*noise, phase)[..., None]
    if background == "sunset":  # from the colour above to orange below
        ground += (ROWS / 32.0)[..., None] * np.array((155.0, 95.0, -55.0), np.float32)
    return ground


# Colour, and relief as a function of (clouds, grain, phase).
_BACKGROUNDS = {
    "grass": ((70, 130, 50), lambda c, g, p: 20 * c + 20 * g),
    "water": ((50, 110, 175), lambda c, g, p: 8 * c + 22 * np.sin(ROWS + 2 * c + p)),
    "sand": ((215, 190, 130), lambda c, g, p: 8 * c + 14 * g),
    "snow": ((228, 234, 244), lambda c, g, p: 8 * c + 5 * g),
    "brick": ((150, 70, 55), lambda c, g, p: 8 * g + 75 * _BRICKS),
    "wood": ((145, 98, 58), lambda c, g, p: 20 * np.sin(COLUMNS * 0.9 + 3 * c + p) + 6 * g),
    "night": ((18, 20, 45), lambda c, g, p: 4 * c + 190 * (g > 2.3)),
    "sunset": ((95, 55, 125), lambda c, g, p: 8 * c),
    "stone": ((135, 135, 138), lambda c, g, p: 14 * c + 6 * g - 50 * _TILES),
    "cloth": ((150, 120, 165), lambda c, g, p: 28 * _checks(p)),
}


# Relief as a function of (grain, phase).
_RELIEFS = {
    "plain": lambda g, p: np.zeros((SIZE, SIZE), np.float32),
    "striped": lambda g, p: 45 * np.sign(np.sin((ROWS + COLUMNS) * 0.9 + p)),
    "dotted": lambda g, p: 60 * (np.sin(ROWS * 1.4 + p) * np.sin(COLUMNS * 1.4 + p) > 0.3),
    "speckled": lambda g, p: 30 * g,
}


def textured(factors: ShapeFactors, rng: np.random.Generator) -> np.ndarray:
    """Return the surface of the shape, float (SIZE, SIZE, 3)."""
    colour = np.asarray(COLOURS[factors.colour], np.float32)
    relief = _RELIEFS[factors.texture](grain(rng), rng.uniform(0.0, 6.28))
    sign = -1.0 if colour.mean() > 128 else 1.0
    return solid(colour) + (sign * relief)[..., None]


# Outlines and styles


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


# Polygons in the unit disc; a shape's second polygon is a hole.
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


def shape_mask(factors: ShapeFactors) -> np.ndarray:
    """Return the coverage (SIZE, SIZE) in [0, 1]; depends on the invariant factors only."""
    canvas = SIZE * SUPERSAMPLE
    angle = math.radians(factors.rotation)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    image = Image.new("L", (canvas, canvas))
    draw = ImageDraw.Draw(image)
    for polygon, fill in zip(_POLYGONS[factors.shape], (255, 0), strict=False):
        points = polygon @ turn.T * factors.scale + (1.0 + factors.x, 1.0 + factors.y)
        draw.polygon([tuple(p) for p in points * canvas / 2], fill=fill)
    return np.asarray(image.reduce(SUPERSAMPLE), np.float32) / 255.0


def _flat(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, _rng: np.random.Generator
) -> np.ndarray:
    return mix(ground, surface, mask)


def _sketch(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    paper = 238.0 + 0.3 * (ground.mean(-1) - ground.mean()) + 4.0 * grain(rng)
    paper = mix(np.repeat(paper[..., None], 3, -1), ground, np.full((SIZE, SIZE), 0.15))
    hatched = 0.22 * mask * (surface.mean(-1) < surface.mean())
    image = mix(paper, 0.6 * surface, hatched)
    pencil = np.clip(edge(mask, 0.7) * (0.85 + 0.25 * grain(rng)), 0.0, 1.0)
    return mix(image, 0.35 * surface + 10.0, pencil)


def _neon_shape(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, _rng: np.random.Generator
) -> np.ndarray:
    colour = surface.mean((0, 1)) + 25.0
    tube = solid(255.0 * colour / colour.max())
    rim = edge(mask, 0.8)
    halo = np.clip(1.1 * blur(rim, 2.2), 0.0, 1.0)
    image = mix(0.3 * ground, tube * 0.8, halo)
    return mix(image, 0.6 * tube + 102.0, rim)


def _watercolour(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    paper = 0.45 * blur(ground, 1.5) + 138.0
    wet = blur(mask, 0.9)
    bleeding = np.clip((wet - 0.5 + 0.22 * clouds(rng, 9)) * 3.0 + 0.5, 0.0, 1.0)
    pigment = 0.65 * blur(surface, 1.2) + 80.0
    wash = np.clip(0.68 + 0.25 * clouds(rng, 5), 0.0, 1.0)
    image = mix(paper, pigment, bleeding * wash)
    return mix(image, 0.6 * pigment, 0.35 * edge(bleeding, 0.6))


_STYLES = {"flat": _flat, "sketch": _sketch, "neon": _neon_shape, "watercolour": _watercolour}


def render_shape(factors: ShapeFactors) -> np.ndarray:
    """Draw these factors, uint8 (SIZE, SIZE, 3); equal factors give equal pixels."""
    rng = np.random.default_rng(factors.noise)
    ground = background_image(factors.background, rng)
    surface = textured(factors, rng)
    mask = shape_mask(factors)
    return to_uint8(_STYLES[factors.style](mask, surface, ground, rng))
