"""Metrics, against hand computation, loops and brute force over coverages and orders."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss

from causalclip.metrics import N_BINS, aurc, classification_metrics, novelty_auroc


def predictions(n=200, n_classes=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(n_classes), n), rng.integers(0, n_classes, n)


def calibration_error_by_loop(p, y):
    confidence, right = p.max(1), p.argmax(1) == y
    total = 0.0
    for low in np.arange(N_BINS) / N_BINS:
        inside = (confidence > low) & (confidence <= low + 1 / N_BINS)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return 100 * total


def aurc_by_coverage(uncertainty, correct):
    order = sorted(range(len(correct)), key=lambda i: uncertainty[i])
    risks = [np.mean([1 - correct[i] for i in order[:n]]) for n in range(1, len(order) + 1)]
    return np.mean(risks)


def test_the_metrics_are_those_computed_by_hand():
    p = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    y = np.array([0, 1, 1, 2])
    metrics = classification_metrics(p, y)
    assert metrics["accuracy"] == pytest.approx(75)
    # F1 is 2/3, 2/3 and 1.
    assert metrics["macro_f1"] == pytest.approx(100 * 7 / 9)
    assert metrics["nll"] == pytest.approx(-np.mean(np.log([0.8, 0.6, 0.3, 0.7])))
    assert metrics["brier"] == pytest.approx(np.mean([0.06, 0.26, 0.78, 0.14]))
    # Four samples in four bins: the mean gap between confidence and being right.
    assert metrics["ece"] == pytest.approx(100 * np.mean([0.2, 0.4, 0.5, 0.3]))
    # The only mistake is the least certain sample.
    assert metrics["aurc"] == pytest.approx(np.mean([0, 0, 0, 1 / 4]))
    assert metrics["n"] == 4


def test_calibration_error_and_brier_score_agree_with_other_implementations():
    p, y = predictions()
    metrics = classification_metrics(p, y)
    assert metrics["ece"] == pytest.approx(calibration_error_by_loop(p, y), abs=1e-6)
    per_class = [brier_score_loss(y == k, p[:, k]) for k in range(5)]
    assert metrics["brier"] == pytest.approx(sum(per_class))


def test_classes_absent_from_the_labels_are_allowed():
    p, y = predictions()
    metrics = classification_metrics(p, np.where(y == 4, 3, y))
    assert all(np.isfinite(list(metrics.values())))
    # An absent class has no F1 of its own, as in Dassl.
    assert classification_metrics(np.eye(3)[:2], np.arange(2))["macro_f1"] == 100


def test_perfect_and_hopeless_predictions_reach_the_ends_of_the_scales():
    y = np.arange(4)
    right = classification_metrics(np.eye(4), y)
    wrong = classification_metrics(np.eye(4)[::-1], y)
    assert (right["accuracy"], right["ece"], right["aurc"]) == (100, 0, 0)
    assert (wrong["accuracy"], wrong["ece"], wrong["aurc"]) == (0, 100, 1)
    assert (right["brier"], wrong["brier"]) == (0, 2)


def test_tensors_in_single_and_half_precision_are_taken():
    p, y = predictions()
    expected = classification_metrics(p, y)["nll"]
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float16, 1e-2)):
        metrics = classification_metrics(torch.tensor(p, dtype=dtype), torch.tensor(y))
        assert metrics["nll"] == pytest.approx(expected, abs=tolerance)


def test_aurc_is_the_mean_risk_over_all_coverages():
    rng = np.random.default_rng(0)
    uncertainty, correct = rng.random(60), rng.integers(0, 2, 60)
    assert aurc(uncertainty, correct) == pytest.approx(aurc_by_coverage(uncertainty, correct))


def test_aurc_of_ties_is_the_mean_over_their_orders():
    correct = np.array([1, 0, 1, 1, 0])
    uncertainty = np.array([0.1, 0.5, 0.5, 0.5, 0.9])
    orders = [np.array([0, *middle, 4]) for middle in itertools.permutations([1, 2, 3])]
    expected = np.mean([aurc_by_coverage(np.arange(5), correct[order]) for order in orders])
    assert aurc(uncertainty, correct) == pytest.approx(expected)
    assert aurc(uncertainty[::-1], correct[::-1]) == pytest.approx(expected)


def test_a_given_uncertainty_replaces_the_confidence():
    p, y = predictions()
    wrong = (p.argmax(1) != y).astype(float)
    oracle = classification_metrics(p, y, uncertainty=wrong)["aurc"]
    assert oracle < classification_metrics(p, y)["aurc"]
    assert oracle == pytest.approx(aurc_by_coverage(wrong, 1 - wrong))


def test_novelty_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    base, new = rng.integers(0, 8, 40), rng.integers(2, 10, 30)
    pairs = [(n > b) + 0.5 * (n == b) for b in base for n in new]
    assert novelty_auroc(base, new) == pytest.approx(100 * np.mean(pairs))
    assert novelty_auroc([0.0, 0.1], [0.5]) == 100
    assert novelty_auroc([0.5], [0.5]) == 50


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.empty((0, 3)), np.empty(0, int), r"got \(0, 3\) and \(0,\)"),
        (np.ones(3) / 3, np.zeros(3, int), r"got \(3,\) and \(3,\)"),
        (np.ones((2, 1)), np.zeros(2, int), "two classes"),
        (np.ones((2, 2)) / 2, np.zeros(3, int), r"got \(2, 2\) and \(3,\)"),
        (np.ones((2, 2)) / 2, np.array([0, 2]), r"integers in \[0, 2\)"),
        (np.ones((2, 2)) / 2, np.array([0, -1]), r"integers in \[0, 2\)"),
        (np.ones((2, 2)) / 2, np.array([0.0, 1.0]), "got float64"),
        (np.array([[0.5, 0.5], [2.0, 3.0]]), np.zeros(2, int), "first is row 1 with sum 5"),
        (np.array([[np.nan, 1.0], [0.5, 0.5]]), np.zeros(2, int), "first is row 0 with sum nan"),
        (np.array([[1.5, -0.5]]), np.zeros(1, int), "non-negative"),
    ],
)
def test_bad_predictions_are_refused(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(probabilities, labels)


def test_bad_uncertainties_are_refused():
    with pytest.raises(ValueError, match="new must be a non-empty vector"):
        novelty_auroc([0.1], [])
    with pytest.raises(ValueError, match="base must not hold NaN, got 1 of 2"):
        novelty_auroc([0.1, np.nan], [0.5])
    with pytest.raises(ValueError, match="must match, got 2 and 3"):
        aurc([0.1, 0.2], [1, 0, 1])
