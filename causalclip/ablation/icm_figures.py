"""CLIP-ICM's figures: heat maps of the grid, the spectrum, embeddings before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from causalclip.ablation.icm_scores import HEADS, choice_of, grid, heads_of
from causalclip.ablation.planning import Row
from causalclip.icm.projection import Estimator
from causalclip.icm.selection import Choice, Scored
from causalclip.report.plots_style import COLOURS, colour, marker
from causalclip.report.results import RESULTS_FILE, Result
from causalclip.runs.plan import Run

Figures = dict[str, Figure]
SYMBOLS = {"difference": "lambda", "generalized": "eps"}
Accuracies = Mapping[Choice, float]
"""Per cent, of every cell of a grid."""


# Heat maps


def heat_maps(rows: Sequence[Row], split: str) -> Figures:
    """Accuracy over strength and dimension, a row a left-out domain; a star is what was chosen.

    With val the accuracies are those on the sources left out (the star has the best by RULE best);
    with test those on the target, where the star says how well the sources have chosen.
    """
    figures = {}
    for name, head in HEADS.items():
        runs = [run for run in rows[0].runs if head in heads_of(result_of(run))]
        if runs:
            figures[f"heatmaps_{head}"] = _maps(runs, head, split, name)
    return figures


def _maps(runs: Sequence[Run], head: str, split: str, name: str) -> Figure:
    maps = {run: accuracies(run, head, split) for run in runs}
    of = {cell.estimator for cells in maps.values() for cell in cells}
    estimators = [name for name in get_args(Estimator) if name in of]
    low, high = (f(v for of in maps.values() for v in of.values()) for f in (min, max))
    size = (3.6 * len(estimators), 2.2 * len(runs) + 0.6)
    figure, axes = plt.subplots(len(runs), len(estimators), figsize=size, squeeze=False)
    for run, line in zip(runs, axes, strict=True):
        chosen = choice_of(heads_of(result_of(run))[head]["choice"])
        for estimator, ax in zip(estimators, line, strict=True):
            image = heat_map(ax, maps[run], estimator, chosen, limits=(low, high))
        line[0].set_title(f"{where(run)} left out", loc="left")
    figure.colorbar(image, ax=axes, label=f"{name} accuracy (%)")
    return figure


def heat_map(
    ax: Axes,
    cells: Accuracies,
    estimator: Estimator,
    chosen: Choice,
    *,
    limits: tuple[float, float],
) -> AxesImage:
    """Draw the cells of one estimator, and a star on the chosen one if it is among them."""
    mine = [cell for cell in cells if cell.estimator == estimator]
    strengths = sorted({cell.strength for cell in mine})
    dims = sorted({cell.dim_inv for cell in mine})
    values = np.full((len(strengths), len(dims)), np.nan)
    for cell in mine:
        values[strengths.index(cell.strength), dims.index(cell.dim_inv)] = cells[cell]
    image = ax.imshow(values, aspect="auto", origin="lower", vmin=limits[0], vmax=limits[1])
    if chosen in mine:
        place = dims.index(chosen.dim_inv), strengths.index(chosen.strength)
        ax.plot(*place, marker="*", markersize=13, color="white", markeredgecolor="black")
    ax.set_xticks(range(len(dims)), [str(k) for k in dims])
    ax.set_yticks(range(len(strengths)), [f"{s:g}" for s in strengths])
    ax.set(xlabel="dimensions kept", ylabel=SYMBOLS[estimator])
    ax.grid(visible=False)
    return image


def accuracies(run: Run, head: str, split: str) -> Accuracies:
    """The accuracy of every cell of a head's grid, per cent."""
    if split == "val":
        scored: Sequence[Scored] = grid(heads_of(result_of(run))[head])
    else:
        from causalclip.ablation.features import on_target

        scored = on_target(run, head)
    return {cell.choice: cell.mean for cell in scored}


def result_of(run: Run) -> Result:
    """The result of a run."""
    return Result.read(run.folder / RESULTS_FILE)


def where(run: Run) -> str:
    """Which domain was left out, in which run."""
    result = result_of(run)
    return f"{' '.join(result.target_domains)} (seed {result.seed})"


# The spectrum


def spectra(rows: Sequence[Row], _split: str) -> Figures:
    """The eigenvalues of each head's choice, in the order in which they are kept."""
    runs = rows[0].runs
    heads = [head for head in HEADS.values() if head in heads_of(result_of(runs[0]))]
    figure, axes = plt.subplots(1, len(heads), figsize=(4.2 * len(heads), 3.2), squeeze=False)
    for ax, head in zip(axes[0], heads, strict=True):
        for number, run in enumerate(runs):
            spectrum(ax, heads_of(result_of(run))[head], where(run), colour(number))
        ax.set(xlabel="eigenvector", ylabel="eigenvalue", title=head, xscale="log")
        ax.set_yscale("symlog", linthresh=1e-4)
        if all(min(heads_of(result_of(run))[head]["spectrum"]) >= 0 for run in runs):
            ax.set_ylim(bottom=0)
        ax.legend(title="filled: kept", fontsize="small")
    return {"spectrum": figure}


def spectrum(ax: Axes, found: Mapping, name: str, ink: str) -> None:
    """The eigenvalues (D,) of one choice: those that are kept filled."""
    values, k = np.array(found["spectrum"]), found["choice"]["dim_inv"]
    places = np.arange(1, len(values) + 1)
    label = f"{name}: {found['choice']['estimator']}, {k} of {len(values)}"
    ax.plot(places, values, color=ink, lw=0.8, label=label)
    ax.plot(places[:k], values[:k], "o", color=ink, markersize=4)
    ax.plot(places[k:], values[k:], "o", color=ink, markersize=3, mew=0.6, markerfacecolor="white")


# Embeddings


def embeddings(rows: Sequence[Row], split: str) -> Figures:
    """Images before and after the projections, by class and by domain: PCA and t-SNE.

    Of the first domain left out: with val the sources' validation images, with test the target's as
    well.
    """
    from causalclip.ablation.features import embedded

    points = embedded(rows[0].runs[0], split)
    figures = {}
    for name, flat in points.flat.items():
        figure, axes = plt.subplots(len(flat), 2, figsize=(8, 3.2 * len(flat)))
        for line, (when, places) in zip(axes, flat.items(), strict=True):
            for ax, (what, names) in zip(line, points.named.items(), strict=True):
                scatter(ax, places, names)
                ax.set_title(f"{when}, by {what}")
        for ax, what in zip(axes[0], points.named, strict=True):
            ax.legend(title=what, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
        figures[f"embeddings_{name}"] = figure
    return figures


def scatter(ax: Axes, places: np.ndarray, names: np.ndarray) -> None:
    """Points (N, 2), coloured and marked by their names (N,)."""
    for number, name in enumerate(dict.fromkeys(sorted(names))):
        shifted = number + number // len(COLOURS)  # a repeated colour has another marker
        style = {"color": colour(number), "marker": marker(shifted)}
        ax.scatter(*places[names == name].T, s=9, linewidths=0, alpha=0.7, label=name, **style)
    ax.set(xticks=[], yticks=[])
