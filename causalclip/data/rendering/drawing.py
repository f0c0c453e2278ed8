"""Draw noise, blur and layers on float arrays in 0..255."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image

SIZE = 32
"""Side of a picture, in pixels."""
SUPERSAMPLE = 4
"""Factor by which outlines are drawn larger before they are averaged down."""

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


AXIS = np.arange(SIZE, dtype=np.float32) + 0.5
ROWS, COLUMNS = AXIS[:, None], AXIS[None, :]
"""Coordinates of a picture's pixels."""


@cache
def _blur_matrix(sigma: float) -> np.ndarray:
    """Return the Gaussian blur of one axis as a (SIZE, SIZE) matrix, edges repeated."""
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((SIZE, SIZE), np.float32)
    for offset, tap in zip(offsets, taps / taps.sum(), strict=True):
        np.add.at(matrix, (np.arange(SIZE), np.clip(np.arange(SIZE) + offset, 0, SIZE - 1)), tap)
    return matrix


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur the first two axes of a picture (S, S, ...) with a Gaussian of `sigma` pixels."""
    matrix = _blur_matrix(sigma)
    rows = (matrix @ image.reshape(SIZE, -1)).reshape(image.shape)
    return (matrix @ rows.swapaxes(0, 1).reshape(SIZE, -1)).reshape(image.shape).swapaxes(0, 1)


def clouds(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Return smooth noise (SIZE, SIZE) in about [-1, 1] from (cells, cells) random values."""
    coarse = rng.uniform(-1.0, 1.0, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def grain(rng: np.random.Generator) -> np.ndarray:
    """Return white noise of unit variance, float32 (SIZE, SIZE)."""
    return rng.standard_normal((SIZE, SIZE)).astype(np.float32)


def solid(colour: tuple[float, ...] | np.ndarray) -> np.ndarray:
    """Return one colour, or one colour per pixel, as a float32 picture (SIZE, SIZE, 3)."""
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = colour
    return image


def mix(below: np.ndarray, above: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Blend `above` over `below`, both (S, S, 3), with an `opacity` (S, S) in [0, 1]."""
    return below + (above - below) * opacity[..., None]


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round a float picture (S, S, 3) to uint8, clipped to 0..255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def edge(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Return the band around the boundary of a mask, both (S, S) in [0, 1], 1 on the boundary."""
    soft = blur(mask, sigma)
    return np.clip(4.0 * soft * (1.0 - soft), 0.0, 1.0)
