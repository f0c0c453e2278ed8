"""Charts of the page: every point at its place, by the pixels of the ticks."""

from __future__ import annotations

import re

import numpy as np
import pytest

from causalclip.page.chart import LEFT, RIGHT, axis, chart
from causalclip.plots.panels import Curve, Panel

LINEAR, LOG = {"logarithmic": False}, {"logarithmic": True}


@pytest.mark.parametrize("kind", [LINEAR, LOG])
def test_ticks_are_at_the_place_of_their_text(kind):
    one = axis(np.array([0.002, 40.0]), (None, None), 300.0, 10.0, **kind)
    assert 2 <= len(one.ticks) <= 6
    scale = np.log10 if kind is LOG else np.asarray
    low, high = scale([one.low, one.high])
    for pixel, text in one.ticks:
        assert pixel == pytest.approx(300 - 290 * (scale(float(text)) - low) / (high - low))


@pytest.mark.parametrize("values", [[], [np.nan], [3.0, 3.0], [-1.0, 0.0]])
def test_an_axis_has_a_length_whatever_the_values(values):
    one = axis(np.array(values), (None, None), 0.0, 100.0, **LINEAR)
    assert one.low < one.high
    assert np.isfinite([pixel for pixel, _ in one.ticks]).all()


def points(path):
    """The numbers of a path, a row a point, and its commands."""
    return np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float), re.sub(r"[^ML]", "", path)


def test_curves_reach_the_limits_and_have_gaps():
    curve = Curve([0, 1, 2, 4], [0.0, 1.0, np.nan, 0.5], "own", 1, marked=True)
    panels = [Panel([curve], "y", x=(0, 4), y=(0, 1)), Panel([Curve([0, 4], [0, 9])], "n", "x")]
    shown = chart(panels, height=200, first=2, label="label")
    upper, lower = shown["panels"]
    (drawn,) = upper["lines"]
    found, commands = points(drawn["line"])
    middle = (upper["top"] + upper["bottom"]) / 2
    xs, ys = [LEFT, LEFT + (RIGHT - LEFT) / 4, RIGHT], [upper["bottom"], upper["top"], middle]
    assert found == pytest.approx(np.stack([xs, ys], axis=-1), abs=0.06)
    assert (commands, points(drawn["dots"])[1]) == ("MLM", "MMM")
    assert shown["names"] == [("own", drawn["style"])]
    assert upper["bottom"] < lower["top"] < lower["bottom"] < shown["height"]
