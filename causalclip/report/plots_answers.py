"""Figures of one run's answers: calibration, risk, confusion, uncertainty, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causalclip.report.plots_numbers import (
    Reliability,
    histogram,
    histogram_edges,
    thinned,
)
from causalclip.report.plots_style import FAINT, colour, dash, marker, plain

SHORT = 14
"""Letters of a class name beside a matrix."""
BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff00", "#0072B2"])
"""From nothing to blue: on white and on dark paper."""


def draw_reliability(figure: Figure, readings: Mapping[str, Reliability]) -> None:
    """Accuracy against confidence of each reading; the diagonal is honest."""
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
    for number, (name, found) in enumerate(readings.items()):
        axes.plot(
            found.confidence,
            found.accuracy,
            color=colour(number),
            marker=marker(number),
            linewidth=1.6 if number == 0 else 0.9,
            label=plain(name),
        )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.legend(loc="upper left")


def draw_risk_coverage(
    figure: Figure, readings: Mapping[str, tuple[NDArray, NDArray]], *, points: int = 200
) -> None:
    """Error of the images that are kept, against how many are, of each reading."""
    axes = figure.subplots()
    for number, (name, (coverage, risk)) in enumerate(readings.items()):
        x, y = thinned(coverage, risk, points=points)
        axes.plot(100 * x, 100 * y, color=colour(number), linestyle=dash(number), label=plain(name))
    axes.set(xlabel="coverage (%), least uncertain first", ylabel="error (%)", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    axes.legend()


def draw_confusion(figure: Figure, matrix: NDArray, names: Sequence[str]) -> None:
    """Share of each class (rows) that was taken for each (columns), per cent."""
    axes = figure.subplots()
    shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=BLUES, vmin=0, vmax=100, interpolation="nearest")
    shown = [short(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=90)
    axes.set_yticks(range(len(names)), shown)
    axes.set(xlabel="predicted", ylabel="class")
    axes.grid(visible=False)
    for i, j in zip(*np.nonzero(shares >= 0.5), strict=True):
        # Dark ink on full blue cannot be read, in either of the page's two modes.
        ink = "white" if shares[i, j] > 55 else rcParams["text.color"]
        axes.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=6, color=ink)


def draw_uncertainty(
    figure: Figure, groups: Mapping[str, NDArray], *, label: str = "uncertainty"
) -> None:
    """Histograms of the uncertainty of groups of images: right, wrong, of new classes."""
    axes = figure.subplots()
    edges, logarithmic = histogram_edges(np.concatenate(list(groups.values())))
    for number, (name, values) in enumerate(groups.items()):
        axes.stairs(
            100 * histogram(values, edges),
            edges,
            color=colour(number),
            linestyle=dash(number),
            linewidth=1.3,
            label=f"{name} ({len(values)})",
        )
    axes.set(xlabel=label, ylabel="images of the group (%)")
    if logarithmic:
        axes.set_xscale("log")
    axes.legend()


def draw_training(figure: Figure, curve: Mapping[str, Sequence[float]]) -> None:
    """Mean loss and accuracy of each epoch."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    lower.xaxis.get_major_locator().set_params(integer=True)
    how = {"marker": "o" if len(curve["epoch"]) < 30 else ""}
    upper.plot(curve["epoch"], curve["loss"], color=colour(0), **how)
    upper.set(ylabel="loss")
    lower.plot(curve["epoch"], curve["accuracy"], color=colour(1), **how)
    lower.set(xlabel="epoch", ylabel="accuracy (%)")


def short(name: str) -> str:
    """A class name beside a matrix."""
    return plain(name if len(name) <= SHORT else name[: SHORT - 1] + "…")
