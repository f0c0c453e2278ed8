"""What every picture is drawn with: noise, blur and layers on float arrays in 0..255."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image

SIZE = 32
"""Side of a picture, in pixels."""
SUPERSAMPLE = 4
"""How much larger outlines are drawn before they are averaged down."""

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


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, `sigma` in pixels, of the first two axes of a square picture (S, S, ...)."""
    size = len(image)
    matrix = _blur_matrix(size, sigma)
    rows = (matrix @ image.reshape(size, -1)).reshape(image.shape)
    return (matrix @ rows.swapaxes(0, 1).reshape(size, -1)).reshape(image.shape).swapaxes(0, 1)


def clouds(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise in about [-1, 1], (size, size): `cells` random values a side, interpolated."""
    coarse = rng.uniform(-1.0, 1.0, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """White noise of unit variance, float32 (size, size)."""
    return rng.standard_normal((size, size)).astype(np.float32)


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column coordinates of a (size, size) picture in units of a 32nd of its side."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (32.0 / size)
    return axis[:, None], axis[None, :]


def solid(size: int, colour: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """One colour, or one a pixel (S, S, 3), as a float32 picture (S, S, 3) for S = `size`."""
    image = np.empty((size, size, 3), np.float32)
    image[:] = colour
    return image


def mix(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lay `above` over `below`, both (S, S, 3), as opaque as `opacity` (S, S) in [0, 1] says."""
    return below + (above - below) * opacity[..., None]


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round a float picture (S, S, 3) to uint8, cutting at 0 and 255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def edge(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Band around the boundary of a mask (S, S) in [0, 1]: (S, S), 1 on the boundary itself."""
    soft = blur(mask, sigma)
    return np.clip(4.0 * soft * (1.0 - soft), 0.0, 1.0)
