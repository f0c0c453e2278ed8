"""Figures of what CDC and CLIP-ICM say about themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from causalclip.report.plots_answers import BLUES
from causalclip.report.plots_style import FAINT, colour, marker

Head = Mapping[str, Any]
"""What results.json says of one of CLIP-ICM's subspaces (`details.heads.NAME`)."""

# CDC


def draw_templates(figure: Figure, members: Sequence[Mapping[str, float]], fused: float) -> None:
    """Accuracy of each template alone; the line is that of all together, `fused` (per cent)."""
    axes = figure.subplots()
    names = [f"S{number}" for number in range(1, len(members) + 1)]
    accuracies = [member["accuracy"] for member in members]
    low = max(0.0, min([*accuracies, fused]) - 10)
    bars = axes.bar(names, accuracies, color=colour(0), width=0.6)
    for bar, value in zip(bars, accuracies, strict=True):  # at its foot, where no line crosses
        axes.text(*_foot(bar, low), f"{value:.1f}", ha="center", color="white", fontsize=7)
    axes.axhline(fused, color=colour(1), linestyle="--", label=f"all together: {fused:.1f}")
    # Bars are read by their ends: differences of a point between 80 and 90 are what is asked.
    axes.set(ylabel="accuracy (%)", xlabel="template", ylim=(low, 100))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0)


def _foot(bar: Rectangle, low: float) -> tuple[float, float]:
    """Where the text of a bar stands: near its lower end, for an axis from `low` to 100."""
    return bar.get_x() + bar.get_width() / 2, low + 0.04 * (100 - low)


# CLIP-ICM


def draw_spectrum(figure: Figure, heads: Mapping[str, Head]) -> None:
    """Eigenvalues of each subspace's problem, and how many directions are kept."""
    axes = figure.subplots()
    values = np.concatenate([np.asarray(head["spectrum"], float) for head in heads.values()])
    for number, (name, head) in enumerate(heads.items()):
        kept = head["choice"]["dim_inv"]
        axes.plot(
            np.arange(1, len(head["spectrum"]) + 1),
            head["spectrum"],
            color=colour(number),
            marker=marker(number),
            markersize=2,
            label=f"{name}, {kept} kept",
        )
        axes.axvline(kept + 0.5, color=colour(number), linestyle=":", linewidth=1)
    axes.set(xlabel="direction", ylabel="eigenvalue")
    positive = values[values > 0]
    if len(positive) == len(values) and values.max() > 1000 * values.min():
        axes.set_yscale("log")
    axes.legend()


def draw_energy(figure: Figure, heads: Mapping[str, Head]) -> None:
    """What each subspace keeps of the features' energy and of the interventions' change."""
    axes = figure.subplots()
    rows = np.arange(len(heads))
    kinds = (
        ("features", "feature_energy_kept"),
        ("interventions' change", "intervention_energy_kept"),
    )
    for number, (label, key) in enumerate(kinds):
        values = [100 * head[key] for head in heads.values()]
        bars = axes.barh(rows + 0.2 - 0.4 * number, values, 0.36, color=colour(number), label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=6, padding=2)
    axes.set_yticks(rows, list(heads))
    axes.set(xlabel="kept (%)", xlim=(0, 110))
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=2)


def draw_choice(figure: Figure, grid: Sequence[Mapping[str, Any]], chosen: Head) -> None:
    """Mean accuracy on the held-out sources of every cell of the grid; the chosen one is framed.

    A heat map an estimator, strength by dimensions; of cells that differ in more, the best one.
    """
    estimators = list(dict.fromkeys(cell["estimator"] for cell in grid))
    strengths = sorted({cell["strength"] for cell in grid})
    sizes = sorted({cell["dim_inv"] for cell in grid})
    best = cells_of(grid)
    low, high = min(best.values()), max(best.values())
    for axes, estimator in zip(
        figure.subplots(1, len(estimators), squeeze=False, sharey=True)[0], estimators, strict=True
    ):
        table = np.full((len(strengths), len(sizes)), np.nan)
        for (i, strength), (j, size) in product(enumerate(strengths), enumerate(sizes)):
            table[i, j] = best.get((estimator, strength, size), np.nan)
        image = axes.imshow(table, cmap=BLUES, vmin=low, vmax=high, aspect="auto")
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes], rotation=90)
        axes.set_yticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        axes.set(title=estimator, xlabel="dimensions kept")
        axes.grid(visible=False)
        if chosen["estimator"] == estimator:
            where = sizes.index(chosen["dim_inv"]), strengths.index(chosen["strength"])
            axes.plot(*where, marker="s", markersize=9, fillstyle="none", color=colour(1), mew=1.6)
    axes = figure.axes[0]
    axes.set_ylabel("strength")
    figure.colorbar(image, ax=figure.axes, label="accuracy (%)").outline.set_edgecolor(FAINT)


def cells_of(grid: Sequence[Mapping[str, Any]]) -> dict[tuple[str, float, int], float]:
    """The best mean accuracy by (estimator, strength, dimensions)."""
    best: dict[tuple[str, float, int], float] = {}
    for cell in grid:
        key = (cell["estimator"], cell["strength"], cell["dim_inv"])
        best[key] = max(best.get(key, -np.inf), cell["mean"])
    return best


def draw_angles(figure: Figure, heads: Mapping[str, Head]) -> None:
    """By how many degrees resampled images turn each subspace: the median and the 95 % end."""
    axes = figure.subplots()
    for number, head in enumerate(heads.values()):
        found = head["certainty"]
        axes.plot([0, found["angle_95"]], [number] * 2, color=colour(number), linewidth=3)
        axes.plot(found["angle_50"], number, marker="o", color=colour(number), markersize=6)
        if found.get("bound") is not None:
            axes.plot(found["bound"], number, marker="|", color=colour(1), markersize=12)
    axes.set_yticks(range(len(heads)), list(heads))
    axes.set(xlabel="largest angle (°): median, to 95 %", xlim=(0, 90))
    axes.set_ylim(-0.6, len(heads) - 0.4)
