"""Looks of a digit: a coverage mask coloured as ink, chalk, a neon tube, on noisy paper, ...

Equal arguments and an equal generator give equal pixels.
"""

from __future__ import annotations

import colorsys

import numpy as np

from causalclip.data.rendering.drawing import (
    COLOURS,
    blur,
    clouds,
    grain,
    grid,
    mix,
    solid,
    to_uint8,
)


def _hue(rng: np.random.Generator, saturation: float, value: float) -> np.ndarray:
    return 255.0 * np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


# A stroke's colour is float RGB, or None for one of the look's own; scan and negative have none.
Colour = np.ndarray | None


def _scan(mask: np.ndarray, _colour: Colour, _rng: np.random.Generator) -> np.ndarray:
    return solid(len(mask), (255, 255, 255)) * (1.0 - mask[..., None])


def _negative(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    return 255.0 - _scan(mask, colour, rng)


def _ink(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    paper = solid(size, rng.uniform((235, 225, 200), (255, 250, 235)))
    paper += 4.0 * clouds(rng, size, 5)[..., None]
    inks = ((25, 25, 60), (20, 20, 25), (70, 30, 25), (30, 40, 110))
    pressure = np.clip(0.85 + 0.2 * clouds(rng, size, 6), 0.0, 1.0)
    ink = inks[rng.integers(len(inks))] if colour is None else 0.6 * colour
    return mix(paper, solid(size, ink), mask * pressure)


def _chalk(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    boards = ((35, 60, 48), (40, 42, 46), (28, 45, 70))
    board = solid(size, boards[rng.integers(len(boards))])
    board += (9.0 * clouds(rng, size, 6) + 5.0 * grain(rng, size))[..., None]
    chalks = ((238, 238, 230), (240, 225, 150), (240, 190, 190))
    grip = np.clip(0.72 + 0.3 * grain(rng, size), 0.0, 1.0)
    chalk = chalks[rng.integers(len(chalks))] if colour is None else 0.55 * colour + 115.0
    return mix(board, solid(size, chalk), mask * grip)


def _neon(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    wall = solid(size, rng.uniform((5, 5, 15), (30, 20, 50)))
    if colour is None:
        tube = _hue(rng, rng.uniform(0.75, 1.0), 1.0)
    else:
        tube = 255.0 * colour / colour.max()
    halo = np.clip(blur(mask, 2.6 * size / 32) * 0.9, 0.0, 1.0)
    image = mix(wall, solid(size, tube * 0.75), halo)
    # The tube itself is the rim of the stroke: a neon sign is a line, not an area.
    image = mix(image, solid(size, tube), 0.55 * mask)
    return mix(image, solid(size, 0.5 * tube + 127.0), np.clip(1.3 * mask - 0.75, 0.0, 1.0))


def _noisy_paper(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    if colour is None:
        paper = solid(size, rng.uniform((165, 140, 95), (205, 185, 145)))
    else:  # a yellow stroke would not show on yellowed paper
        paper = solid(size, rng.uniform((185, 180, 165), (220, 215, 205)))
    paper += (32.0 * clouds(rng, size, 4))[..., None]
    rows, _ = grid(size)
    ruled = (np.abs((rows + rng.uniform(0, 8)) % 8.0 - 4.0) < 0.5) * 0.35
    paper = mix(paper, solid(size, (110, 120, 150)), np.broadcast_to(ruled, (size, size)))
    faded = np.clip((0.62 if colour is None else 0.72) + 0.3 * clouds(rng, size, 4), 0.0, 1.0)
    pencil = rng.uniform((40, 30, 30), (80, 60, 60)) if colour is None else 0.5 * colour
    image = mix(paper, solid(size, pencil), mask * faded)
    return image + (17.0 * grain(rng, size))[..., None]


def _paint(mask: np.ndarray, colour: Colour, rng: np.random.Generator) -> np.ndarray:
    size = len(mask)
    if colour is None:
        dark, light = _hue(rng, 0.8, rng.uniform(0.25, 0.5)), _hue(rng, 0.4, rng.uniform(0.8, 1.0))
        above, below = (dark, light) if rng.random() < 0.5 else (light, dark)
    elif rng.random() < 0.5:
        above, below = 0.5 * colour + 115.0, _hue(rng, 0.4, 0.3)
    else:
        above, below = 0.6 * colour, _hue(rng, 0.4, 1.0)
    image = mix(solid(size, below), solid(size, above), mask)
    return image + (10.0 * clouds(rng, size, 6))[..., None]


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

    Raises:
        ValueError: for another look or colour.
    """
    if look not in _LOOKS:
        raise ValueError(f"look must be one of {', '.join(LOOKS)}, got {look!r}")
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"colour must be one of {', '.join(COLOURS)}, got {colour!r}")
    stroke = None if colour is None else np.asarray(COLOURS[colour], np.float32)
    return to_uint8(_LOOKS[look](mask, stroke, rng))
