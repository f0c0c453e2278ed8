"""Plots of one run: of any method, of CDC and of CLIP-ICM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causalclip.metrics import N_BINS
from causalclip.plots.panels import Curve, Panel, stairs
from causalclip.plots.style import FAINT, literal_text, series_colour

BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff00", "#0072B2"])
"""Colour map from transparent to blue, for light and for dark backgrounds."""

ENERGIES = {"feature": "features", "intervention": "interventions' change"}
Curves = Mapping[str, tuple[NDArray, NDArray]]
"""x (N,) and y (N,) by the name of a reading."""
Heads = Mapping[str, Mapping[str, Any]]
"""CLIP-ICM's subspaces in results.json (`details.heads`)."""


# Any method


def training_panels(curve: Mapping[str, Sequence[float]]) -> list[Panel]:
    """Return panels of the mean loss and the mean accuracy of each epoch."""
    epochs, few = curve["epoch"], len(curve["epoch"]) < 30
    loss, accuracy = (
        Curve(epochs, curve[name], number=number, marked=few)
        for number, name in enumerate(("loss", "accuracy"))
    )
    return [Panel([loss], "loss"), Panel([accuracy], "accuracy (%)", "epoch", whole=True)]


def reliability(
    probabilities: NDArray, labels: NDArray[np.integer], *, n_bins: int = N_BINS
) -> tuple[NDArray, NDArray]:
    """Return mean confidence (B,) and accuracy (B,) of the equally wide bins that are not empty.

    The confidence of an image is the largest of its probabilities (N, K), and its answer is right
    if this is the probability of its label (N,) (Guo et al., ICML 2017).
    """
    from sklearn.calibration import calibration_curve

    correct = probabilities.argmax(-1) == labels
    confidence = probabilities.max(-1).astype(np.float64).clip(0, 1)
    accuracy, mean = calibration_curve(correct.astype(int), confidence, n_bins=n_bins, pos_label=1)
    return mean, accuracy


def reliability_panels(curves: Curves, confidences: NDArray) -> list[Panel]:
    """Return accuracy against confidence of each reading; the diagonal is perfect calibration.

    The panel below is a histogram of the confidences (N,) of the method's own reading.
    """
    counts, edges = np.histogram(confidences, np.linspace(0, 1, N_BINS + 1))
    lines = [
        Curve(confidence, accuracy, name, number, marked=True)
        for number, (name, (confidence, accuracy)) in enumerate(curves.items())
    ]
    upper = Panel([Curve([0, 1], [0, 1]), *lines], "accuracy", x=(0, 1), y=(-0.02, 1.02), height=3)
    images = Curve(*stairs(edges, counts), number=0)
    return [upper, Panel([images], "images", "confidence", x=(0, 1), y=(0, None))]


def risk_panels(curves: Curves, *, points: int = 200) -> list[Panel]:
    """Return error against coverage (both fractions) of each reading, at most `points` points."""
    lines = []
    for number, (name, (coverage, risk)) in enumerate(curves.items()):
        count = min(points, len(coverage))
        shown = np.unique(np.linspace(0, len(coverage) - 1, count).round().astype(int))
        lines.append(Curve(100 * coverage[shown], 100 * risk[shown], name, number))
    label = "coverage (%), least uncertain first"
    return [Panel(lines, "error (%)", label, x=(0, 100), y=(0, None))]


def draw_confusion(figure: Figure, matrix: NDArray, names: Sequence[str]) -> None:
    """Draw the confusion matrix: the share of each class (rows) by predicted class, per cent."""
    axes = figure.subplots()
    shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=BLUES, vmin=0, vmax=100, interpolation="nearest")
    labels = [literal_text(name if len(name) <= 14 else name[:13] + "…") for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=90)
    axes.set_yticks(range(len(names)), labels)
    axes.set(xlabel="predicted", ylabel="class")
    axes.grid(visible=False)
    for i, j in zip(*np.nonzero(shares >= 0.5), strict=True):
        # White text on full blue is readable in the light and in the dark mode of the page.
        ink = "white" if shares[i, j] > 55 else rcParams["text.color"]
        axes.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=6, color=ink)


def histogram_edges(values: NDArray, *, bins: int = 30) -> tuple[NDArray, bool]:
    """Return edges (bins + 1,) for values (N,), and whether they are logarithmic.

    They are logarithmic if the values span three decades: an uncertainty of fused evidence can be
    1e-69. Then the first edge is the 1 % quantile of the positive values, at least 1e-12.
    """
    high = float(values.max())
    positive = values[values > 0]
    low = max(float(np.quantile(positive, 0.01)), 1e-12) if len(positive) else high
    if high > 0 and low * 1000 < high:
        return np.geomspace(low, high, bins + 1), True
    low = float(values.min())
    return np.linspace(low, high if high > low else low + 1, bins + 1), False


def histogram(values: NDArray, edges: NDArray) -> NDArray:
    """Return the share (bins,) of values (N,) in each bin; the end bins include values beyond."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    return counts / len(values)


def histogram_panels(groups: Mapping[str, NDArray], quantity: str = "uncertainty") -> list[Panel]:
    """Return a histogram of a quantity (N,) of each group of images."""
    edges, logarithmic = histogram_edges(np.concatenate(list(groups.values())))
    lines = [
        Curve(*stairs(edges, 100 * histogram(values, edges)), f"{name} ({len(values)})", number)
        for number, (name, values) in enumerate(groups.items())
    ]
    log = "x" if logarithmic else ""
    return [Panel(lines, "images of the group (%)", quantity, y=(0, None), logarithmic=log)]


# CDC


def draw_templates(figure: Figure, members: Sequence[Mapping[str, float]], fused: float) -> None:
    """Draw the accuracy of each template alone, and of all together (`fused`, per cent)."""
    axes = figure.subplots()
    names = [f"S{number}" for number in range(1, len(members) + 1)]
    accuracies = [member["accuracy"] for member in members]
    # The axis does not begin at 0, to show differences of one point between high accuracies.
    low = max(0.0, min([*accuracies, fused]) - 10)
    foot = low + 0.04 * (100 - low)  # below the dashed line
    axes.bar(names, accuracies, color=series_colour(0), width=0.6)
    for place, value in enumerate(accuracies):
        axes.text(place, foot, f"{value:.1f}", ha="center", color="white", fontsize=7)
    axes.axhline(fused, color=series_colour(1), linestyle="--", label=f"all together: {fused:.1f}")
    axes.set(ylabel="accuracy (%)", xlabel="template", ylim=(low, 100))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0)


# CLIP-ICM


def spectrum_panels(heads: Heads) -> list[Panel]:
    """Return the eigenvalues of each subspace, with a line after the directions that it keeps."""
    values = np.concatenate([np.asarray(head["spectrum"], float) for head in heads.values()])
    low, high = np.nanmin(values), np.nanmax(values)
    lines = []
    for number, (name, head) in enumerate(heads.items()):
        kept, spectrum = head["choice"]["dim_inv"], np.asarray(head["spectrum"], float)
        directions = np.arange(1, len(spectrum) + 1)
        lines.append(Curve([kept + 0.5] * 2, [low, high]))
        lines.append(Curve(directions, spectrum, f"{name}, {kept} kept", number, marked=True))
    log = "y" if 0 < 1000 * low < high else ""
    return [Panel(lines, "eigenvalue", "direction", logarithmic=log, whole=True)]


def draw_energy(figure: Figure, heads: Heads) -> None:
    """Draw the energy that each subspace keeps of the features and of the interventions' change."""
    axes = figure.subplots()
    rows = np.arange(len(heads))
    for number, (kind, label) in enumerate(ENERGIES.items()):
        values = [100 * head[f"{kind}_energy_kept"] for head in heads.values()]
        places = rows + 0.2 - 0.4 * number
        bars = axes.barh(places, values, 0.36, color=series_colour(number), label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=6, padding=2)
    axes.set_yticks(rows, list(heads))
    axes.set(xlabel="kept (%)", xlim=(0, 110))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=2)


def choice_grid(grid: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return mean accuracies by estimator and strength (rows) and dimensions (columns).

    Of cells that differ only in other options, the best one is used.
    """
    cells = pd.DataFrame(grid)
    return cells.groupby(["estimator", "strength", "dim_inv"])["mean"].max().unstack()


def draw_choice(
    figure: Figure, grid: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]
) -> None:
    """Draw the mean accuracy on the held-out sources of every cell of the grid.

    There is a heat map for each estimator, with strengths as rows and dimensions as columns. The
    chosen cell has a frame.
    """
    best = choice_grid(grid)
    sizes = list(best.columns)
    strengths = list(best.index.unique("strength"))
    estimators = list(best.index.unique("estimator"))
    low, high = best.min(axis=None), best.max(axis=None)
    panels = figure.subplots(1, len(estimators), squeeze=False, sharey=True)[0]
    for axes, estimator in zip(panels, estimators, strict=True):
        values = best.loc[[estimator]].droplevel(0).reindex(strengths)
        image = axes.imshow(values, cmap=BLUES, vmin=low, vmax=high, aspect="auto")
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes], rotation=90)
        axes.set_yticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        axes.set(title=estimator, xlabel="dimensions kept")
        axes.grid(visible=False)
        if chosen["estimator"] == estimator:
            place = sizes.index(chosen["dim_inv"]), strengths.index(chosen["strength"])
            axes.plot(*place, "s", markersize=9, fillstyle="none", color=series_colour(1), mew=1.6)
    panels[0].set_ylabel("strength")
    figure.colorbar(image, ax=panels, label="accuracy (%)").outline.set_edgecolor(FAINT)


def draw_angles(figure: Figure, heads: Heads) -> None:
    """Draw the median and 95 % quantile of the largest angle to subspaces of resampled images."""
    axes = figure.subplots()
    for number, head in enumerate(heads.values()):
        angles, colour = head["certainty"], series_colour(number)
        axes.plot([0, angles["angle_95"]], [number] * 2, color=colour, linewidth=3)
        axes.plot(angles["angle_50"], number, marker="o", color=colour, markersize=6)
        if angles.get("bound") is not None:
            axes.plot(angles["bound"], number, marker="|", color=series_colour(1), markersize=12)
    axes.set_yticks(range(len(heads)), list(heads))
    axes.set(xlabel="largest angle (°): median, to 95 %", xlim=(0, 90))
    axes.set_ylim(-0.6, len(heads) - 0.4)
