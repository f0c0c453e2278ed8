"""CausalShapes: exact twins on disk, and a background whose tie to the class is adjustable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats.contingency import association

from causalclip.data.rendering import (
    BACKGROUNDS,
    INVARIANT_FACTORS,
    SHAPES,
    VARIANT_FACTORS,
    render_shape,
)
from causalclip.datasets.causal_shapes import HOME, confounded

LEFT_OUT = {"SOURCE_DOMAINS": ["flat", "sketch", "neon"], "TARGET_DOMAINS": ["watercolour"]}


@pytest.fixture
def shapes(load, few_shapes):
    return lambda **settings: load("CausalShapes", few_shapes, **settings)


def cramers_v(data, items):
    table = np.zeros((len(SHAPES), len(BACKGROUNDS)), int)
    for item in items:
        table[item.label, BACKGROUNDS.index(data.factors[item.impath].background)] += 1
    return association(table, method="cramer")


def at_home(data, items):
    return np.mean([data.factors[i.impath].background == HOME[SHAPES[i.label]] for i in items])


def used(data):
    return [*data.train_x, *data.val, *data.test]


def test_classes_are_the_shapes_and_parts_are_disjoint_in_shape_and_pose(shapes):
    data = shapes()
    assert data.classnames == list(SHAPES)
    poses = [
        {tuple(getattr(data.factors[i.impath], f) for f in INVARIANT_FACTORS) for i in part}
        for part in (data.train_x, data.val, data.test)
    ]
    assert len(set.union(*poses)) == sum(map(len, poses)) == len(SHAPES) * 20
    assert Counter(i.label for i in data.train_x) == dict.fromkeys(range(10), 4 * 10)


def test_pixels_on_disk_are_those_of_the_factors(shapes):
    data = shapes()
    for path in list(data.factors)[::97]:
        assert np.array_equal(np.asarray(Image.open(path)), render_shape(data.factors[path]))


@pytest.mark.parametrize("settings", [{}, LEFT_OUT, {"CORRELATION": 0.3}])
def test_a_twin_differs_in_the_variant_factors_and_in_nothing_else(shapes, settings):
    data = shapes(**settings)
    assert set(data.twins) == {item.impath for item in used(data)}
    for path, twin in data.twins.items():
        one, other = data.factors[path], data.factors[twin]
        assert all(getattr(one, f) == getattr(other, f) for f in INVARIANT_FACTORS)
        own_style = settings and one.style == "watercolour"
        changed = set(VARIANT_FACTORS) - ({"style"} if own_style else set())
        assert all(getattr(one, f) != getattr(other, f) for f in changed)
        assert Path(twin).is_file()


def test_the_twins_of_sources_never_show_the_target_style(shapes):
    data = shapes(**LEFT_OUT)
    for item in (*data.train_x, *data.val):
        assert data.factors[data.twins[item.impath]].style in LEFT_OUT["SOURCE_DOMAINS"]
    for item in data.test:
        assert data.factors[data.twins[item.impath]].style == "watercolour"


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 1.0])
def test_training_pictures_follow_the_correlation(shapes, correlation):
    data = shapes(CORRELATION=correlation)
    expected = correlation + (1 - correlation) / len(BACKGROUNDS)
    assert at_home(data, data.train_x) == pytest.approx(expected, abs=0.06)


def test_the_correlation_is_broken_in_the_test_pictures_and_in_a_left_out_domain(shapes):
    for settings in ({}, LEFT_OUT):
        data = shapes(**settings)
        assert at_home(data, data.train_x) > 0.85 and cramers_v(data, data.train_x) > 0.8
        assert at_home(data, data.test) < 0.2 and cramers_v(data, data.test) < 0.45


def test_the_test_pictures_can_be_confounded_too(shapes):
    data = shapes(TEST_CORRELATION=1.0)
    assert at_home(data, data.test) == 1.0


def test_a_higher_correlation_only_moves_pictures_home(shapes):
    def homes(correlation):
        data = shapes(CORRELATION=correlation)
        return {i.impath for i in data.train_x if i.impath.endswith("home.png")}

    assert homes(0.2) < homes(0.6) < homes(0.9)


def test_the_same_correlation_chooses_the_same_pictures(shapes):
    assert [i.impath for i in used(shapes())] == [i.impath for i in used(shapes(seed=5))]


def test_the_count_at_home_is_exact():
    for correlation in (0.0, 0.25, 0.9, 1.0):
        chosen = confounded(40, correlation, seed=(1, 2))
        assert len(chosen) == 40 and sum(chosen) == round(40 * correlation)


@pytest.mark.parametrize("key", ["CORRELATION", "TEST_CORRELATION"])
@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_correlation_out_of_range_is_refused(shapes, key, value):
    with pytest.raises(ValueError, match=rf"DATASET.{key} must be in \[0, 1\], got {value}"):
        shapes(**{key: value})
