"""Numbers behind the figures against hand computation, scikit-learn and our own AURC."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from causalclip.metrics import aurc, classification_metrics, risk_coverage
from causalclip.report.plots_numbers import (
    confusion,
    histogram,
    histogram_edges,
    reliability,
    thinned,
    worst_pairs,
)


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=500)
    return p, rng.integers(4, size=500)


def test_the_bins_of_the_diagram_give_the_expected_calibration_error(answers):
    p, labels = answers
    found = reliability(p, labels)
    edges = np.linspace(0, 1, 16)
    counts = np.histogram(p.max(-1), edges)[0]
    counts = counts[counts > 0]
    ece = np.sum(counts * np.abs(found.accuracy - found.confidence)) / 500
    assert 100 * ece == pytest.approx(classification_metrics(p, labels)["ece"])


def test_reliability_of_two_bins_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.45, 0.55]])
    found = reliability(p, np.array([0, 1, 1, 1]), n_bins=4)
    assert found.confidence == pytest.approx([0.575, 0.85])
    assert found.accuracy == pytest.approx([1.0, 0.5])


def test_all_answers_wrong_is_a_diagram_too():
    found = reliability(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([1, 1]))
    assert found.accuracy.tolist() == [0.0]


def test_the_area_under_the_risk_coverage_curve_is_aurc_with_ties():
    u = np.array([0.1, 0.1, 0.5, 0.2, 0.5, 0.9])
    right = np.array([True, False, True, True, False, False])
    coverage, risk = risk_coverage(u, right)
    assert coverage == pytest.approx(np.arange(1, 7) / 6)
    assert risk[:2] == pytest.approx([0.5, 0.5])  # a tie of one right and one wrong
    assert risk[-1] == pytest.approx(0.5)
    assert risk.mean() == pytest.approx(aurc(u, right))


def test_a_thinned_curve_keeps_its_ends():
    x, y = thinned(np.arange(1000.0), np.arange(1000.0) ** 2, points=50)
    assert len(x) == 50
    assert (x[0], x[-1], y[-1]) == (0, 999, 999.0**2)


def test_the_matrix_is_that_of_scikit_learn_and_has_classes_that_do_not_occur(answers):
    _, labels = answers
    predicted = np.roll(labels, 1)
    matrix = confusion(labels, predicted, classes=6)
    assert matrix.shape == (6, 6)
    assert (matrix[:4, :4] == confusion_matrix(labels, predicted)).all()


def test_the_worst_pairs_come_by_the_share_of_their_class():
    found = worst_pairs(np.array([[8, 2, 0], [1, 1, 0], [0, 0, 5]]))
    assert [(pair.label, pair.predicted, pair.count) for pair in found] == [(1, 0, 1), (0, 1, 2)]
    assert [pair.share for pair in found] == [0.5, 0.2]


def test_evidence_of_many_decades_is_shown_on_a_logarithmic_axis_and_counts_every_image():
    values = np.array([1e-69, 1e-9, 1e-4, 0.1, 1.0])
    edges, logarithmic = histogram_edges(values)
    assert logarithmic
    assert histogram(values, edges).sum() == pytest.approx(1)
    edges, logarithmic = histogram_edges(np.array([0.3, 0.3, 0.3]))
    assert not logarithmic
    assert histogram(np.array([0.3, 0.3]), edges).sum() == pytest.approx(1)
