"""Pictures of shapes from their factors: outline, surface, background and style."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from causalclip.data.rendering.drawing import (
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
from causalclip.data.rendering.factors import SHAPES, STYLES, ShapeFactors
from causalclip.data.rendering.surfaces import background_image, textured


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
    """Coverage (size, size) in [0, 1]; depends on the invariant factors only.

    Raises:
        ValueError: for a shape that is not one of `SHAPES`.
    """
    if factors.shape not in _POLYGONS:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {factors.shape!r}")
    canvas = size * SUPERSAMPLE
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
    size = len(mask)
    paper = 238.0 + 0.3 * (ground.mean(-1) - ground.mean()) + 4.0 * grain(rng, size)
    paper = mix(np.repeat(paper[..., None], 3, -1), ground, np.full((size, size), 0.15))
    hatched = 0.22 * mask * (surface.mean(-1) < surface.mean())
    image = mix(paper, 0.6 * surface, hatched)
    pencil = np.clip(edge(mask, 0.7 * size / 32) * (0.85 + 0.25 * grain(rng, size)), 0.0, 1.0)
    return mix(image, 0.35 * surface + 10.0, pencil)


def _neon_shape(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, _rng: np.random.Generator
) -> np.ndarray:
    size = len(mask)
    colour = surface.mean((0, 1)) + 25.0
    tube = solid(size, 255.0 * colour / colour.max())
    rim = edge(mask, 0.8 * size / 32)
    halo = np.clip(1.1 * blur(rim, 2.2 * size / 32), 0.0, 1.0)
    image = mix(0.3 * ground, tube * 0.8, halo)
    return mix(image, 0.6 * tube + 102.0, rim)


def _watercolour(
    mask: np.ndarray, surface: np.ndarray, ground: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    size = len(mask)
    paper = 0.45 * blur(ground, 1.5 * size / 32) + 138.0
    wet = blur(mask, 0.9 * size / 32)
    bleeding = np.clip((wet - 0.5 + 0.22 * clouds(rng, size, 9)) * 3.0 + 0.5, 0.0, 1.0)
    pigment = 0.65 * blur(surface, 1.2 * size / 32) + 80.0
    wash = np.clip(0.68 + 0.25 * clouds(rng, size, 5), 0.0, 1.0)
    image = mix(paper, pigment, bleeding * wash)
    return mix(image, 0.6 * pigment, 0.35 * edge(bleeding, 0.6 * size / 32))


_STYLES = {
    "flat": _flat,
    "sketch": _sketch,
    "neon": _neon_shape,
    "watercolour": _watercolour,
}


def render_shape(factors: ShapeFactors, *, size: int = SIZE) -> np.ndarray:
    """The picture of these factors, uint8 (size, size, 3); equal factors give equal pixels.

    Raises:
        ValueError: for a shape, background or style that is not known.
    """
    if factors.style not in _STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {factors.style!r}")
    rng = np.random.default_rng(factors.noise)
    ground = background_image(factors.background, rng, size=size)
    surface = textured(factors, rng, size)
    mask = shape_mask(factors, size=size)
    return to_uint8(_STYLES[factors.style](mask, surface, ground, rng))
