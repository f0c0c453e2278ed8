"""What a picture of a shape depends on: invariant and variant factors, drawn and intervened on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causalclip.data.rendering.drawing import COLOURS

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


def draw_pose(shape: str, rng: np.random.Generator) -> dict[str, Any]:
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
