"""The threshold for a risk, against a search over all thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from causalclip.predict.answers import threshold_for


def by_search(uncertainty, correct, risk):
    """The largest number of images that a threshold answers at the risk; 0 if there is none."""
    best = 0
    for threshold in uncertainty:
        answered = [right for u, right in zip(uncertainty, correct, strict=True) if u <= threshold]
        if 100 * answered.count(False) <= risk * len(answered):
            best = max(best, len(answered))
    return best


@pytest.mark.parametrize("seed", range(40))
def test_no_threshold_answers_more_at_the_risk(seed):
    draw = np.random.default_rng(seed)
    n = int(draw.integers(1, 40))
    uncertainty = draw.integers(0, 12, n) / 7 if seed % 2 else draw.random(n)  # odd seeds: ties
    correct = (draw.random(n) > 0.3 * uncertainty).tolist()
    risk = float(draw.choice([0, 5, 20, 50]))
    best = by_search(uncertainty, correct, risk)
    if not best:
        with pytest.raises(ValueError, match="no threshold keeps the error"):
            threshold_for(uncertainty, correct, risk=risk)
        return
    chosen = threshold_for(uncertainty, correct, risk=risk)
    answered = uncertainty <= chosen.uncertainty
    assert answered.sum() == best
    assert chosen.coverage == pytest.approx(100 * best / n)
    assert chosen.risk == pytest.approx(100 * (1 - np.mean(np.array(correct)[answered])))
    assert chosen.risk <= risk and chosen.images == n


def test_a_risk_of_a_hundred_answers_everything():
    assert threshold_for([0.1, 3.0], [0, 0], risk=100).uncertainty == 3.0


@pytest.mark.parametrize(
    ("uncertainty", "correct", "risk", "message"),
    [
        ([0.5, 0.5], [1, 0], 10, r"no threshold keeps .* 10 % .* lowest is 50 %"),
        ([0.1], [1], -1, "risk must be in"),
        ([0.1], [1], float("nan"), "risk must be in"),
        ([], [], 5, "not empty"),
        ([0.1, 0.2], [1], 5, "one length"),
        ([float("nan")], [1], 5, "without NaN"),
    ],
)
def test_input_without_a_threshold_is_refused(uncertainty, correct, risk, message):
    with pytest.raises(ValueError, match=message):
        threshold_for(uncertainty, correct, risk=risk)
