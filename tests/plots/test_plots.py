"""Numbers of the figures against hand computation and our own metrics; figures as files."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from causalclip.metrics import aurc, classification_metrics, risk_coverage
from causalclip.plots.panels import draw_panels, stairs
from causalclip.plots.run_plots import histogram, histogram_edges, reliability, risk_panels
from causalclip.plots.style import write_figure


def test_the_bins_of_the_diagram_give_the_expected_calibration_error():
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(4), size=500), rng.integers(4, size=500)
    confidence, accuracy = reliability(p, labels)
    counts = np.histogram(p.max(-1), np.linspace(0, 1, 16))[0]
    ece = np.sum(counts[counts > 0] * np.abs(accuracy - confidence)) / 500
    assert 100 * ece == pytest.approx(classification_metrics(p, labels)["ece"])


@pytest.mark.parametrize(
    ("p", "labels", "expected"),
    [
        ([0.9, 0.8, 0.4, 0.45], [0, 1, 1, 1], ([0.575, 0.85], [1.0, 0.5])),
        ([0.9, 0.9], [1, 1], ([0.9], [0.0])),  # all of them wrong
    ],
)
def test_reliability_by_hand(p, labels, expected):
    probabilities = np.stack([p, 1 - np.array(p)], axis=-1)
    confidence, accuracy = reliability(probabilities, np.array(labels), n_bins=4)
    assert confidence == pytest.approx(expected[0])
    assert accuracy == pytest.approx(expected[1])


def test_the_area_under_the_risk_coverage_curve_is_aurc_with_ties():
    u = np.array([0.1, 0.1, 0.5, 0.2, 0.5, 0.9])
    right = np.array([True, False, True, True, False, False])
    coverage, risk = risk_coverage(u, right)
    assert coverage == pytest.approx(np.arange(1, 7) / 6)
    assert risk[:2] == pytest.approx([0.5, 0.5])  # a tie of one right and one wrong
    assert risk[-1] == pytest.approx(0.5)
    assert risk.mean() == pytest.approx(aurc(u, right))


def test_a_long_curve_is_drawn_with_few_points_and_keeps_its_ends():
    panels = risk_panels({"own": (np.arange(1000.0), np.arange(1000.0) ** 2)}, points=50)
    figure = Figure()
    draw_panels(figure, panels)
    (x, y) = figure.axes[0].lines[0].get_data()
    assert len(x) == 50
    assert (x[0], x[-1], y[-1]) == (0, 99_900, 100 * 999.0**2)


def test_stairs_are_matplotlibs():
    edges, values = np.array([0.0, 1.0, 3.0]), np.array([2.0, 5.0])
    patch = Figure().subplots().stairs(values, edges)
    assert np.stack(stairs(edges, values), axis=-1).tolist() == patch.get_path().vertices.tolist()


def test_evidence_of_many_decades_is_shown_on_a_logarithmic_axis_and_counts_every_image():
    values = np.array([1e-69, 1e-9, 1e-4, 0.1, 1.0])
    edges, logarithmic = histogram_edges(values)
    assert logarithmic
    assert histogram(values, edges).sum() == pytest.approx(1)
    edges, logarithmic = histogram_edges(np.array([0.3, 0.3, 0.3]))
    assert not logarithmic
    assert histogram(np.array([0.3, 0.3]), edges).sum() == pytest.approx(1)


@pytest.mark.parametrize("suffix", ["pdf", "png", "svg"])
def test_a_figure_that_finds_no_room_is_said_and_the_old_one_stays(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a.{suffix}"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"No space left to write .*a.{suffix}"):
        write_figure(path, lambda figure: figure.add_subplot())
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"
