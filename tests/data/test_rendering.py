"""Rendered pictures: determinism, what each factor may touch, legibility by nearest template."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from causalclip.data.rendering import (
    BACKGROUNDS,
    COLOURLESS_LOOKS,
    COLOURS,
    DIGIT_COLOURS,
    DIGIT_NAMES,
    INVARIANT_FACTORS,
    LOOKS,
    SHAPES,
    STYLES,
    TEXTURES,
    ShapeFactors,
    draw_factors,
    draw_look,
    enlarge,
    font_mask,
    intervene,
    render_shape,
    shape_mask,
    stroke_mask,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def factors_of(seed, **fixed):
    drawn = draw_factors(SHAPES[seed % len(SHAPES)], rng(seed), style=STYLES[seed % len(STYLES)])
    return replace(drawn, **fixed)


@pytest.mark.parametrize("make", [font_mask, stroke_mask])
def test_a_digit_is_the_same_for_the_same_generator_and_another_for_another(make):
    first, again, other = (make(7, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("make", [font_mask, stroke_mask])
@pytest.mark.parametrize("digit", range(len(DIGIT_NAMES)))
def test_every_digit_fits_into_the_picture_and_leaves_some_of_it_free(make, digit):
    for seed in range(5):
        mask = make(digit, rng(seed))
        assert mask.shape == (32, 32) and 0.0 <= mask.min() and mask.max() <= 1.0
        assert 0.02 < mask.mean() < 0.6
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.mean() < 0.2


def test_printed_digits_are_told_apart_by_their_mean_picture():
    """The drawing is legible: a plain nearest-mean rule names fresh digits far above chance."""
    means = np.stack([np.mean([font_mask(d, rng(s)) for s in range(60)], 0) for d in range(10)])
    means /= np.linalg.norm(means, axis=(1, 2), keepdims=True)
    right = [
        (means * font_mask(d, rng(1000 + s))).sum((1, 2)).argmax() == d
        for d in range(10)
        for s in range(10)
    ]
    assert np.mean(right) > 0.5


def test_enlarging_a_full_and_an_empty_scan_gives_full_and_empty_coverage():
    assert np.all(enlarge(np.full((8, 8), 16)) == 1.0)
    assert np.all(enlarge(np.zeros((8, 8))) == 0.0)


@pytest.mark.parametrize("colour", [None, *DIGIT_COLOURS])
@pytest.mark.parametrize("look", LOOKS)
def test_every_look_shows_the_mask_in_every_colour(look, colour):
    mask = np.zeros((32, 32), np.float32)
    mask[8:24, 12:20] = 1.0
    inside, outside = mask == 1.0, mask == 0.0
    gaps = []
    for seed in range(8):
        picture = draw_look(mask, look, rng(seed), colour=colour).astype(float)
        assert picture.shape == (32, 32, 3)
        gaps.append(np.abs(picture[inside].mean(0) - picture[outside].mean(0)).max())
    assert min(gaps) > 25


@pytest.mark.parametrize("look", LOOKS)
def test_a_colour_changes_the_stroke_alone_and_only_in_coloured_looks(look):
    mask = np.zeros((32, 32), np.float32)
    mask[14:18, 14:18] = 1.0
    pictures = [draw_look(mask, look, rng(), colour=c).astype(int) for c in DIGIT_COLOURS]
    corners = [picture[:6, :6] for picture in pictures]  # beyond the halo of the neon tube
    assert all(np.abs(corner - corners[0]).max() <= 1 for corner in corners)
    strokes = {tuple(picture[mask == 1.0].mean(0).round()) for picture in pictures}
    assert len(strokes) == (1 if look in COLOURLESS_LOOKS else len(DIGIT_COLOURS))


@pytest.mark.parametrize("field", INVARIANT_FACTORS)
def test_the_mask_depends_on_every_invariant_factor(field):
    factors = factors_of(9)  # a triangle, which no rotation below 120 degrees maps to itself
    other = {"shape": "heart"}.get(field, getattr(factors, field))
    other = other if field == "shape" else other + {"rotation": 20.0}.get(field, 0.1)
    changed = shape_mask(replace(factors, **{field: other}))
    assert not np.array_equal(shape_mask(factors), changed)


def test_a_twin_differs_in_every_variant_factor_but_the_style_and_in_no_other():
    for seed in range(20):
        factors = factors_of(seed)
        avoid = tuple(b for b in BACKGROUNDS if b not in (factors.background, "cloth", "sand"))
        twin = intervene(factors, rng(seed), avoid=avoid)
        same = {key for key in asdict(factors) if getattr(factors, key) == getattr(twin, key)}
        assert same == {*INVARIANT_FACTORS, "style"}
        assert twin.background in {"cloth", "sand"}
        assert np.array_equal(shape_mask(factors), shape_mask(twin))
        assert np.array_equal(render_shape(factors), render_shape(ShapeFactors(**asdict(factors))))


@pytest.mark.parametrize(
    ("field", "values"),
    [("colour", tuple(COLOURS)), ("texture", TEXTURES), ("background", BACKGROUNDS),
     ("style", STYLES)],
)  # fmt: skip
def test_every_value_of_a_variant_factor_looks_different(field, values):
    factors = factors_of(4, style="flat", colour="red", texture="plain", background="stone")
    pictures = [render_shape(replace(factors, **{field: value})).astype(float) for value in values]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert np.abs(one - other).mean() > 1.0
