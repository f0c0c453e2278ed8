"""Three variants of RandAugment: fixed strength, random strength and chance, FixMatch's.

Cubuk et al., arXiv 1909.13719; FixMatch: Sohn et al., arXiv 2001.07685. A variant is a table of
(operation, weakest, strongest); its order and the draws are Dassl's, so seeds give the same images.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Pil = Image.Image


def _either_sign(value: float) -> float:
    return -value if random.random() > 0.5 else value


def _affine(image: Pil, *coefficients: float) -> Pil:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


def _solarize_add(image: Pil, value: float) -> Pil:
    """Brighten every level by `value`, then invert those from 128 on."""
    brighter = [int(min(level + value, 255)) for level in range(256)]
    return ImageOps.solarize(image.point(brighter * len(image.getbands())), 128)


def _cutout(image: Pil, value: float) -> Pil:
    """Cover a square of `value` pixels around a random centre with the mean colour of ImageNet."""
    width, height = image.size
    x, y = np.random.uniform(width), np.random.uniform(height)
    left, top = int(max(0, x - value / 2)), int(max(0, y - value / 2))
    covered = image.copy()
    box = (left, top, min(width, left + value), min(height, top + value))
    ImageDraw.Draw(covered).rectangle(box, (125, 123, 114))
    return covered


OPERATIONS: dict[str, Callable[[Pil, float], Pil]] = {
    "auto_contrast": lambda image, v: ImageOps.autocontrast(image),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "cutout": _cutout,
    "equalize": lambda image, v: ImageOps.equalize(image),
    "identity": lambda image, v: image,
    "invert": lambda image, v: ImageOps.invert(image),
    "posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "rotate": lambda image, v: image.rotate(_either_sign(v)),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "shear_x": lambda image, v: _affine(image, 1, _either_sign(v), 0, 0, 1, 0),
    "shear_y": lambda image, v: _affine(image, 1, 0, 0, _either_sign(v), 1, 0),
    "solarize": lambda image, v: ImageOps.solarize(image, v),  # pyright: ignore[reportArgumentType]
    "solarize_add": _solarize_add,
    "shift_x": lambda image, v: _affine(image, 1, 0, _either_sign(v), 0, 1, 0),
    "shift_y": lambda image, v: _affine(image, 1, 0, 0, 0, 1, _either_sign(v)),
    "translate_x": lambda image, v: _affine(image, 1, 0, _either_sign(v) * image.width, 0, 1, 0),
    "translate_y": lambda image, v: _affine(image, 1, 0, 0, 0, 1, _either_sign(v) * image.height),
}

Table = list[tuple[str, float, float]]

FIXED_STRENGTH: Table = [
    ("auto_contrast", 0, 1),
    ("equalize", 0, 1),
    ("invert", 0, 1),
    ("rotate", 0, 30),
    ("posterize", 4, 8),
    ("solarize", 0, 256),
    ("solarize_add", 0, 110),
    ("color", 0.1, 1.9),
    ("contrast", 0.1, 1.9),
    ("brightness", 0.1, 1.9),
    ("sharpness", 0.1, 1.9),
    ("shear_x", 0, 0.3),
    ("shear_y", 0, 0.3),
    ("cutout", 0, 40),
    ("shift_x", 0, 100),
    ("shift_y", 0, 100),
]


def _random_strength(weakest: float, strongest: float, *, invert: bool) -> Table:
    """What RandAugment2 and FixMatch share but for the enhancement range and inversion."""
    enhance = (weakest, strongest)
    geometric = (-0.3, 0.3)
    return [
        ("auto_contrast", 0, 1),
        ("brightness", *enhance),
        ("color", *enhance),
        ("contrast", *enhance),
        ("equalize", 0, 1),
        ("identity", 0, 1),
        *([("invert", 0, 1)] if invert else []),
        ("posterize", 4, 8),
        ("rotate", -30, 30),
        ("sharpness", *enhance),
        ("shear_x", *geometric),
        ("shear_y", *geometric),
        ("solarize", 0, 256),
        ("translate_x", *geometric),
        ("translate_y", *geometric),
    ]


def _apply(image: Pil, operation: tuple[str, float, float], strength: float) -> Pil:
    name, weakest, strongest = operation
    return OPERATIONS[name](image, strength * (strongest - weakest) + weakest)


class RandAugment:
    """n random operations at strength m of 30.

    Raises:
        ValueError: a strength that is not between 0 and 30.
    """

    def __init__(self, n: int = 2, m: float = 10) -> None:
        if not 0 <= m <= 30:
            raise ValueError(f"RANDAUGMENT_M must be between 0 and 30, got {m}")
        self.n, self.m = n, m

    def __call__(self, image: Pil) -> Pil:
        """A picture and what the operations make of it."""
        for operation in random.choices(FIXED_STRENGTH, k=self.n):
            image = _apply(image, operation, self.m / 30)
        return image


class RandAugment2:
    """n random operations, each with probability p and at a random strength."""

    table = _random_strength(0.1, 1.9, invert=True)

    def __init__(self, n: int = 2, p: float = 0.6) -> None:
        self.n, self.p = n, p

    def __call__(self, image: Pil) -> Pil:
        """A picture and what the operations make of it."""
        for operation in random.choices(self.table, k=self.n):
            if random.random() <= self.p:
                image = _apply(image, operation, random.random())
        return image


class RandAugmentFixMatch:
    """n random operations at a random strength, as FixMatch draws them."""

    table = _random_strength(0.05, 0.95, invert=False)

    def __init__(self, n: int = 2) -> None:
        self.n = n

    def __call__(self, image: Pil) -> Pil:
        """A picture and what the operations make of it."""
        for operation in random.choices(self.table, k=self.n):
            image = _apply(image, operation, random.random())
        return image
