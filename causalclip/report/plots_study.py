"""Figures that compare methods: few-shot curves, domains, and every table as intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from causalclip.report.groups import by_name
from causalclip.report.plots_style import colour, marker, plain
from causalclip.report.seeds import half_width

NO_SCORES = ("train s", "AUROC", "ECE base", "ECE new")
"""Quantities that are no accuracy, and stand in no figure of accuracies."""
LONG = 36
"""Letters of a method's name beside an axis."""


def draw_fewshot(figure: Figure, rows: pd.DataFrame) -> None:
    """Accuracy by training images a class; mean and standard deviation of each method's seeds."""
    axes = figure.subplots()
    several = rows[rows.shots > 0]
    for number, (method, part) in enumerate(by_name(several, "method")):
        groups = part.groupby("shots")["value"]
        mean, sd = groups.mean(), groups.std(ddof=0)
        axes.errorbar(
            mean.index, mean, yerr=sd, color=colour(number), marker=marker(number), capsize=2
        )
        axes.plot([], [], color=colour(number), marker=marker(number), label=plain(elided(method)))
    shots = sorted(several["shots"].unique())
    if shots[-1] > 4 * shots[0]:
        axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(k) for k in shots])
    axes.minorticks_off()
    axes.set(xlabel="training images per class", ylabel="accuracy (%)")
    axes.legend()


def draw_comparison(figure: Figure, rows: pd.DataFrame) -> None:
    """The mean of each method with its 95 % interval (Student's t), a panel a quantity."""
    shown = rows[~rows.quantity.isin(NO_SCORES)]
    quantities = list(dict.fromkeys(shown.quantity))
    methods = list(dict.fromkeys(shown.method))
    panels = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    for axes, quantity in zip(panels, quantities, strict=True):
        _intervals(axes, shown[shown.quantity == quantity], methods)
        axes.set_title(plain(quantity))
    panels[0].set_yticks(range(len(methods)), [plain(elided(method)) for method in methods])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    figure.supxlabel("accuracy (%)", fontsize=8)


def _intervals(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> None:
    for number, method in enumerate(methods):
        values = rows[rows.method == method]["value"].to_numpy()
        if len(values):
            width = np.nan_to_num(half_width(values))
            how = {"color": colour(number), "marker": marker(number), "capsize": 2}
            axes.errorbar(values.mean(), number, xerr=width, **how)
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(3))


def elided(name: str) -> str:
    """A method's name, of a long one with the settings in it the two ends."""
    return name if len(name) <= LONG else f"{name[: LONG - 16]}…{name[-15:]}"


def figure_height(rows: pd.DataFrame) -> float:
    """Inches that `draw_comparison` needs."""
    return 0.7 + 0.24 * rows["method"].nunique()
