"""Conformal sets against brute force, and their guarantee by Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest

from causalclip.conformal import (
    SCORES,
    aps_scores,
    conformal_metrics,
    conformal_threshold,
    lac_scores,
)


def planted(n: int, seed: int, k: int = 5):
    """Probabilities (n, k) and labels (n,) of an overconfident model: p is too sharp."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k))
    labels = [
        rng.choice(k, p=row) for row in np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    ]
    sharp = np.exp(3 * logits)
    return sharp / sharp.sum(-1, keepdims=True), np.array(labels)


def test_scores_are_those_of_the_papers():
    p, _ = planted(20, 0)
    u = np.random.default_rng(1).random(20)
    for scores, of_class in (
        (lac_scores(p), lambda row, k, _: 1 - row[k]),
        (aps_scores(p, u), lambda row, k, draw: row[row > row[k]].sum() + draw * row[k]),
    ):
        expected = [
            [of_class(row, k, draw) for k in range(5)] for row, draw in zip(p, u, strict=True)
        ]
        np.testing.assert_allclose(scores, expected, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("n", [1, 9, 19, 40])
def test_the_threshold_is_the_smallest_that_enough_scores_reach(n, alpha):
    scores = np.random.default_rng(n).random(n)
    enough = [s for s in scores if (scores <= s).sum() >= (n + 1) * (1 - alpha) - 1e-9]
    assert conformal_threshold(scores, alpha) == min(enough, default=np.inf)


@pytest.mark.parametrize("name", SCORES)
def test_the_sets_cover_as_often_as_promised_and_no_more(name):
    """Mean coverage is in [1 - alpha, 1 - alpha + 1 / (n + 1)] where no two scores are equal."""
    n, alpha, rounds = 30, 0.2, 1000
    p, y = planted(60 * rounds, 2)
    parts = [slice(60 * r, 60 * r + 60) for r in range(rounds)]
    found = [
        conformal_metrics(
            (p[part][:n], y[part][:n]), (p[part][n:], y[part][n:]), alpha=alpha, seed=r
        )[f"{name}_coverage"]
        for r, part in enumerate(parts)
    ]
    error = 3 * np.std(found) / np.sqrt(rounds)
    low, high = 100 * (1 - alpha), 100 * (1 - alpha + 1 / (n + 1))
    assert low - error <= np.mean(found) <= high + error
    top = 100 * (p.argmax(-1) == y).mean()
    assert top < low - 5  # what the likeliest class alone would cover


def test_coverage_and_size_are_counted_image_by_image():
    (p, y), (p_test, y_test) = planted(19, 3), planted(50, 4)
    found = conformal_metrics((p, y), (p_test, y_test), alpha=0.1, seed=0)
    least = sorted(p[range(19), y])[1]  # the 18th of 19 scores 1 - p
    sets = [{k for k in range(5) if row[k] >= least} for row in p_test]
    assert found["lac_coverage"] == pytest.approx(
        2 * sum(k in s for k, s in zip(y_test, sets, strict=True))
    )
    assert found["lac_size"] == pytest.approx(np.mean([len(s) for s in sets]))
    assert found["conformal_level"] == 90


def test_too_few_images_give_sets_of_all_classes():
    found = conformal_metrics(planted(8, 5), planted(50, 6), alpha=0.1, seed=0)
    assert found["lac_coverage"] == found["aps_coverage"] == 100
    assert found["lac_size"] == found["aps_size"] == 5
