"""Deterministic pictures of digits and shapes, drawn with Pillow and NumPy alone.

Results depend only on the arguments and a `numpy.random.Generator`. Variant and invariant factors
are dataclass fields, so that `dataclasses.replace` makes an exact interventional twin.
"""

# ruff: noqa: F401, I001
from __future__ import annotations
from causalclip.data.rendering.digits import COLOURLESS_LOOKS, DIGIT_COLOURS, DIGIT_DOMAINS
from causalclip.data.rendering.digits import DIGIT_NAMES, LOOKS, coarse, draw_look, enlarge
from causalclip.data.rendering.digits import font_mask, stroke_mask
from causalclip.data.rendering.drawing import COLOURS, SIZE
from causalclip.data.rendering.shapes import BACKGROUNDS, INVARIANT_FACTORS, SHAPES, STYLES
from causalclip.data.rendering.shapes import TEXTURES, VARIANT_FACTORS, ShapeFactors, draw_factors
from causalclip.data.rendering.shapes import intervene, render_shape, shape_mask
