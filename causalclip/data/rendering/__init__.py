"""Deterministic pictures of digits and shapes, drawn with Pillow and NumPy alone.

Everything is a function of its arguments and of a `numpy.random.Generator`; variant and invariant
factors are dataclass fields, so that an exact interventional twin is a `replace()`.
"""

from __future__ import annotations

from causalclip.data.rendering.digits import DIGIT_NAMES, coarse, enlarge, font_mask, stroke_mask
from causalclip.data.rendering.drawing import COLOURS, SIZE
from causalclip.data.rendering.factors import (
    BACKGROUNDS,
    INVARIANT_FACTORS,
    SHAPES,
    STYLES,
    TEXTURES,
    VARIANT_FACTORS,
    ShapeFactors,
    draw_factors,
    intervene,
)
from causalclip.data.rendering.looks import (
    COLOURLESS_LOOKS,
    DIGIT_COLOURS,
    DIGIT_DOMAINS,
    LOOKS,
    draw_look,
)
from causalclip.data.rendering.shapes import render_shape, shape_mask

__all__ = [
    "BACKGROUNDS",
    "COLOURLESS_LOOKS",
    "COLOURS",
    "DIGIT_COLOURS",
    "DIGIT_DOMAINS",
    "DIGIT_NAMES",
    "INVARIANT_FACTORS",
    "LOOKS",
    "SHAPES",
    "SIZE",
    "STYLES",
    "TEXTURES",
    "VARIANT_FACTORS",
    "ShapeFactors",
    "coarse",
    "draw_factors",
    "draw_look",
    "enlarge",
    "font_mask",
    "intervene",
    "render_shape",
    "shape_mask",
    "stroke_mask",
]
