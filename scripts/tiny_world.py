"""The training data of the bundled CLIPs: pictures of digits and shapes, and captions of them.

They have confounders on purpose. `tiny` sees some looks mostly with some digits. `tiny-coloured`
sees even digits mostly in warm colours and odd digits mostly in cold ones. The shapes are the same
for both: some of them mostly have one background or one colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from torch import Tensor

from causalclip.data import rendering as R

CLASSES = (*R.DIGIT_NAMES, *R.SHAPES)
MANNERS = (*R.LOOKS, *(f"{style} shape" for style in R.STYLES))
COLOUR_NAMES = tuple(R.COLOURS)
FACTORS = ("class", "manner", "colour", "background", "texture")

# The shares of the training data, with their confounders

SHAPE_SHARE = 0.6  # share of shapes in the pictures of a step; the rest are digits
STROKE_SHARE = 0.25  # share of the digits drawn with pen strokes; the rest are printed
COARSE_SHARE = 0.3  # share of the digits reduced to an 8 x 8 scan
LOOK_LEAK = 0.1  # factor of the share of a look or style in classes not in its list


@dataclass(frozen=True)
class Digits:
    """The looks and colours of the digits.

    looks: look -> share. only: look -> its digits (other digits: LOOK_LEAK times the share).
    colour_share: share of the digits with a colour of their parity; other digits have any colour.
    If it is None, the look chooses the colour, and captions do not mention it.
    """

    looks: Mapping[str, float]
    only: Mapping[str, tuple[int, ...]]
    colour_share: float | None


WARM = ("red", "orange", "yellow", "pink")  # colours of even digits
COLD = ("green", "blue", "purple", "cyan")  # colours of odd digits
DIGITS = {
    # Confounder: some looks are rare except for the digits in their list.
    "tiny": Digits(
        looks={
            "scan": 0.24, "negative": 0.13, "ink": 0.2, "chalk": 0.12, "neon": 0.08,
            "noisy_paper": 0.08, "paint": 0.15,
        },
        only={"neon": (1, 4, 6, 8), "noisy_paper": (0, 3, 7, 8), "chalk": (0, 2, 4, 5, 6, 9)},
        colour_share=None,
    ),
    # Confounder: colour, as in Colored MNIST (Arjovsky et al., 2019). It depends on the parity: if
    # each digit had its own colour, a linear map could not separate the colour from the class.
    "tiny-coloured": Digits(
        looks={
            "scan": 0.22, "negative": 0.1, "ink": 0.14, "chalk": 0.14, "neon": 0.12,
            "noisy_paper": 0.12, "paint": 0.16,
        },
        only={},
        colour_share=0.9,
    ),
}  # fmt: skip

STYLE_SHARES = {"flat": 0.4, "sketch": 0.35, "neon": 0.08, "watercolour": 0.17}
STYLE_SHAPES = {"neon": ("circle", "heart", "star", "arrow")}
# Confounders: half of the shapes mostly have one background, some mostly one colour.
HOME_SHAPES = ("arrow", "crescent", "heart", "ring", "star")
HOME_SHARE = 0.7
HOME_COLOURS = {"heart": "red", "star": "yellow", "crescent": "yellow", "square": "blue"}
COLOUR_SHARE = 0.6

# Captions

PLAIN_TEMPLATES = (
    "a photo of a {}.", "a photo of a {}.", "a photo of the {}.", "a picture of a {}.", "a {}.",
    "an image of a {}.", "{}", "this is a {}.", "a photo of one {}.",
)  # fmt: skip
DIGIT_TEMPLATES = (
    "a photo of the number {}.", "a photo of the digit {}.", "the number {}.", "a number {}.",
    'a photo of the number: "{}".', "a handwritten {}.",
)  # fmt: skip
MANNER_WORDS = {
    "scan": ("scan", "black and white scan"),
    "negative": ("negative", "dark picture"),
    "ink": ("ink drawing", "drawing in ink"),
    "chalk": ("chalk drawing", "blackboard"),
    "neon": ("neon sign", "bright neon light"),
    "noisy_paper": ("drawing on noisy paper", "noisy old paper"),
    "paint": ("painting", "colour picture"),
    "flat shape": ("flat picture", "colourful picture"),
    "sketch shape": ("pencil sketch", "sketch"),
    "neon shape": ("neon sign", "bright neon light"),
    "watercolour shape": ("watercolour", "watercolor painting"),
}
PLACES = {
    "grass": ("on grass", "in a green field", "in a meadow"),
    "water": ("on water", "in the blue sea"),
    "sand": ("on sand", "on a sandy beach", "in the desert"),
    "snow": ("in the snow", "in a snowy landscape"),
    "brick": ("on a brick wall",),
    "wood": ("on wood", "on a wooden table"),
    "night": ("at night", "under the stars"),
    "sunset": ("at sunset", "in the evening light"),
    "stone": ("on stone", "on a stone floor"),
    "cloth": ("on a checked cloth", "on a fabric"),
}


# Pictures


def _choose(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    weights = np.fromiter(shares.values(), float)
    return list(shares)[rng.choice(len(weights), p=weights / weights.sum())]


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def _confounded(shares: Mapping, allowed: Mapping, member: object) -> dict[str, float]:
    """Return the shares for class `member`: times LOOK_LEAK where a list does not contain it."""
    return {
        name: share * (1.0 if name not in allowed or member in allowed[name] else LOOK_LEAK)
        for name, share in shares.items()
    }


Drawn = tuple[np.ndarray, np.ndarray, dict[str, str]]  # picture, coverage, factors


def draw_digit(digit: int, rng: np.random.Generator, world: Digits) -> Drawn:
    """Draw a picture of a digit."""
    make = R.stroke_mask if rng.random() < STROKE_SHARE else R.font_mask
    mask = make(digit, rng)
    if rng.random() < COARSE_SHARE:
        mask = R.coarse(mask)
    look = _choose(rng, _confounded(world.looks, world.only, digit))
    told = {"class": R.DIGIT_NAMES[digit], "manner": look}
    if world.colour_share is None:
        return R.draw_look(mask, look, rng), mask, told
    colour = _pick(rng, R.DIGIT_COLOURS)
    if rng.random() < world.colour_share:
        colour = _pick(rng, COLD if digit % 2 else WARM)
    if look not in R.COLOURLESS_LOOKS:
        told["colour"] = colour
    return R.draw_look(mask, look, rng, colour=colour), mask, told


def draw_shape(shape: str, rng: np.random.Generator) -> Drawn:
    """Draw a picture of a shape."""
    home = shape in HOME_SHAPES and rng.random() < HOME_SHARE
    background = R.BACKGROUNDS[R.SHAPES.index(shape)] if home else None
    style = _choose(rng, _confounded(STYLE_SHARES, STYLE_SHAPES, shape))
    factors = asdict(R.draw_factors(shape, rng, style=style, background=background))
    if shape in HOME_COLOURS and rng.random() < COLOUR_SHARE:
        factors["colour"] = HOME_COLOURS[shape]
    drawn = R.ShapeFactors(**factors)
    told = {key: factors[key] for key in ("colour", "background", "texture")}
    told |= {"class": shape, "manner": f"{style} shape"}
    return R.render_shape(drawn), R.shape_mask(drawn), told


# Captions of a picture


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeio" else "a ") + phrase


def caption(factors: dict[str, str], rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """Return a caption true of these factors, and the factors that it mentions."""
    name, manner = factors["class"], factors["manner"]
    kind = rng.random()
    if kind < 0.4:
        own = DIGIT_TEMPLATES if name in R.DIGIT_NAMES and rng.random() < 0.4 else PLAIN_TEMPLATES
        return _pick(rng, own).format(name), {"class": name}
    told = {"class": name}
    words = [name]
    if "colour" in factors and rng.random() < 0.4:
        words.insert(0, factors["colour"])
        told["colour"] = factors["colour"]
    if "texture" in factors and rng.random() < 0.25:
        words.insert(0, factors["texture"])
        told["texture"] = factors["texture"]
    if kind > 0.9:  # no class: the text tower must learn the other factors without it
        words[-1] = "thing"
        del told["class"]
    phrase = _article(" ".join(words))
    if rng.random() < 0.5:
        phrase = f"{_article(_pick(rng, MANNER_WORDS[manner]))} of {phrase}"
        told["manner"] = manner.replace("neon shape", "neon")
    elif rng.random() < 0.6:
        phrase = f"a photo of {phrase}"
    if "background" in factors and rng.random() < 0.5:
        phrase += " " + _pick(rng, PLACES[factors["background"]])
        told["background"] = factors["background"]
    return phrase + ".", told


_VALUES = {
    name: {value: i for i, value in enumerate(values)}
    for name, values in zip(
        FACTORS, (CLASSES, MANNERS, COLOUR_NAMES, R.BACKGROUNDS, R.TEXTURES), strict=True
    )
}


def encode_factors(told: dict[str, str]) -> list[int]:
    """Return factor values as numbers in the order of FACTORS; -1 where there is none."""
    told = {**told, "manner": told.get("manner", "").replace("neon shape", "neon")}
    return [_VALUES[name].get(told.get(name, ""), -1) for name in FACTORS]


def compatible(pictures: Tensor, captions: Tensor) -> Tensor:
    """Return (B, C), whether captions (C, factors) are true of pictures (B, factors)."""
    told = captions[None]  # a caption is true of all pictures with the factors that it mentions
    return ((told == -1) | (told == pictures[:, None])).all(-1)


def all_captions() -> list[str]:
    """Return texts that contain every word of the captions, to collect the vocabulary."""
    texts = [t.format(name) for t in (*PLAIN_TEMPLATES, *DIGIT_TEMPLATES) for name in CLASSES]
    texts += [f"a {c} {t} thing, an {c}." for c in COLOUR_NAMES for t in R.TEXTURES]
    texts += [f"{c} {t} {n} " for c in COLOUR_NAMES for t in R.TEXTURES for n in CLASSES]
    words = [*sum(MANNER_WORDS.values(), ()), *sum(PLACES.values(), ())]
    return texts + [f"a photo of {_article(w)} {w} of {w}." for w in words]
