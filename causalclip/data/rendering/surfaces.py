"""Backgrounds and textures: colours with a relief drawn from a generator."""

from __future__ import annotations

import numpy as np

from causalclip.data.rendering.drawing import COLOURS, SIZE, clouds, grain, grid, solid
from causalclip.data.rendering.factors import BACKGROUNDS, ShapeFactors


def _bricks(size: int) -> np.ndarray:
    rows, columns = grid(size)
    shifted = columns + 4.0 * (np.floor(rows / 5.0) % 2)
    return ((rows % 5.0 < 1.0) | (shifted % 8.0 < 1.0)).astype(np.float32)


def _tiles(size: int) -> np.ndarray:
    rows, columns = grid(size)
    return ((rows % 10.0 < 1.0) | (columns % 10.0 < 1.0)).astype(np.float32)


def _checks(size: int, phase: float) -> np.ndarray:
    rows, columns = grid(size)
    return np.sign(np.sin(rows * 0.8 + phase)) + np.sign(np.sin(columns * 0.8 + phase))


def background_image(background: str, rng: np.random.Generator, *, size: int = SIZE) -> np.ndarray:
    """A textured background, float (size, size, 3) in 0..255.

    Raises:
        ValueError: for a background that is not one of `BACKGROUNDS`.
    """
    if background not in _BACKGROUNDS:
        raise ValueError(f"background must be one of {', '.join(BACKGROUNDS)}, got {background!r}")
    colour, relief = _BACKGROUNDS[background]
    noise = clouds(rng, size, 6), grain(rng, size)
    phase = rng.uniform(0.0, 6.28)
    ground = solid(size, colour) + relief(size, *noise, phase)[..., None]
    if background == "sunset":  # from the colour above to orange below
        rows, _ = grid(size)
        ground += (rows / 32.0)[..., None] * np.array((155.0, 95.0, -55.0), np.float32)
    return ground


# Colour, and relief from (size, clouds, grain, phase).
_BACKGROUNDS = {
    "grass": ((70, 130, 50), lambda n, c, g, p: 20 * c + 20 * g),
    "water": ((50, 110, 175), lambda n, c, g, p: 8 * c + 22 * np.sin(grid(n)[0] + 2 * c + p)),
    "sand": ((215, 190, 130), lambda n, c, g, p: 8 * c + 14 * g),
    "snow": ((228, 234, 244), lambda n, c, g, p: 8 * c + 5 * g),
    "brick": ((150, 70, 55), lambda n, c, g, p: 8 * g + 75 * _bricks(n)),
    "wood": ((145, 98, 58), lambda n, c, g, p: 20 * np.sin(grid(n)[1] * 0.9 + 3 * c + p) + 6 * g),
    "night": ((18, 20, 45), lambda n, c, g, p: 4 * c + 190 * (g > 2.3)),
    "sunset": ((95, 55, 125), lambda n, c, g, p: 8 * c),
    "stone": ((135, 135, 138), lambda n, c, g, p: 14 * c + 6 * g - 50 * _tiles(n)),
    "cloth": ((150, 120, 165), lambda n, c, g, p: 28 * _checks(n, p)),
}


# Relief from (size, grain, phase).
_RELIEFS = {
    "plain": lambda n, g, p: np.zeros((n, n), np.float32),
    "striped": lambda n, g, p: 45 * np.sign(np.sin(sum(grid(n)) * 0.9 + p)),
    "dotted": lambda n, g, p: 60 * (_waves(n, 0, p) * _waves(n, 1, p) > 0.3),
    "speckled": lambda n, g, p: 30 * g,
}


def _waves(size: int, axis: int, phase: float) -> np.ndarray:
    return np.sin(grid(size)[axis] * 1.4 + phase)


def textured(factors: ShapeFactors, rng: np.random.Generator, size: int) -> np.ndarray:
    """The surface of the shape, float (size, size, 3)."""
    colour = np.asarray(COLOURS[factors.colour], np.float32)
    relief = _RELIEFS[factors.texture](size, grain(rng, size), rng.uniform(0.0, 6.28))
    sign = -1.0 if colour.mean() > 128 else 1.0
    return solid(size, colour) + (sign * relief)[..., None]
