"""Plots that compare methods: few-shot curves, and intervals of the means of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from causalclip.plots.panels import Curve, Panel
from causalclip.plots.style import FAINT, literal_text, marker_style

Numbers = Mapping[str, int]
"""Number of each method of a study; it determines the colour and marker in every figure."""
ROW = 0.138
"""Height in inches of a line of text of 7 points."""
MOST_CURVES = 7
"""Maximum number of curves of a few-shot plot that have a colour and a name."""


def draw_fewshot(figure: Figure, scores: pd.DataFrame, numbers: Numbers | None = None) -> None:
    """Draw accuracy against training images per class: mean, and deviation over several seeds.

    The `MOST_CURVES` methods with the best means are named; other methods are faint lines.
    """
    axes, columns = figure.subplots(), _legend_columns(figure.get_figwidth())
    shots = sorted(scores["shots"].unique())
    logarithmic = shots[-1] > 4 * shots[0]
    best = scores.groupby("method")["value"].mean().sort_values(ascending=False)
    places = {method: place for place, method in enumerate(scores["method"].unique())}
    handles: dict[str, Any] = {}
    for rank, method in enumerate(map(str, best.index)):
        groups = scores[scores["method"] == method].groupby("shots")["value"]
        mean, sd = groups.mean(), groups.std(ddof=0)
        if rank >= MOST_CURVES:
            (line,) = axes.plot(mean.index, mean, color=FAINT, linewidth=0.6, zorder=1)
            handles[f"{len(best) - MOST_CURVES} others"] = line
            continue
        several = (groups.size() > 1).any()
        x = mean.index.to_numpy(dtype=float)
        if several and logarithmic:  # shift the bars, which would overlap
            x *= 2 ** (0.04 * (rank - (min(len(best), MOST_CURVES) - 1) / 2))
        style = marker_style((numbers or {}).get(method, places[method]))
        bars = axes.errorbar(x, mean, yerr=sd if several else None, capsize=1.5, **style)
        handles[literal_text(shortened(method, 24))] = bars[0]  # the line without error bars
    if logarithmic:
        axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(k) for k in shots])
    axes.minorticks_off()
    axes.set(xlabel="training images per class", ylabel="accuracy (%)")
    legend = {"loc": "outside lower center", "ncols": columns, "columnspacing": 1}
    figure.legend([*handles.values()], [*handles], **legend)


def fewshot_height(width: float, *, methods: int) -> float:
    """Return the height of few-shot curves in inches, with space for the legend below them."""
    names = min(methods, MOST_CURVES + 1)
    return min(0.65 * width, 3.2) + (ROW + 0.03) * math.ceil(names / _legend_columns(width))


def _legend_columns(width: float) -> int:
    return max(1, int(width / 1.65))


def cost_panels(seconds: pd.Series, scores: pd.Series, numbers: Mapping[str, int]) -> list[Panel]:
    """Return the score of each method over the seconds of a training, and the Pareto front.

    A method is on the front if no other method is both better and cheaper.

    Args:
        seconds: seconds of a training by method, positive.
        scores: score by method; a method without seconds or score is left out.
        numbers: number of each method.
    """
    points = pd.DataFrame({"x": seconds, "y": scores}).dropna().sort_values(["x", "y"])
    front = points[points.y > points.y.cummax().shift(fill_value=-np.inf)]
    stairs = np.repeat(front.x, 2)[1:], np.repeat(front.y, 2)[:-1]
    curves = [
        Curve([row.x], [row.y], f"{place}: {row.Index}", numbers[row.Index], True, str(place))
        for place, row in enumerate(list[Any](points.itertuples()), start=1)
    ]
    log = "x" if points.x.max() > 20 * points.x.min() else ""
    label = "HM, or average accuracy (%)"
    return [Panel([Curve(*stairs), *curves], label, "seconds of a training", logarithmic=log)]


def draw_comparison(
    figure: Figure, table: pd.DataFrame, quantities: Sequence[str], numbers: Numbers | None = None
) -> None:
    """Draw each method's mean, and its 95 % interval over several seeds; a panel per quantity.

    Args:
        figure: an empty figure of the height that `comparison_height` returns.
        table: a row per method; the half width of the interval of X is in the column `X ci95`.
        quantities: the columns to draw.
        numbers: number of each method; None for the number of its row.
    """
    columns = _panel_columns(figure.get_figwidth(), len(quantities))
    rows = math.ceil(len(quantities) / columns)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, quantity in zip(panels.flat, quantities, strict=False):
        intervals = zip(table["method"], table[quantity], table[f"{quantity} ci95"], strict=True)
        for place, (method, mean, width) in enumerate(intervals):
            if not np.isnan(mean):
                style = marker_style((numbers or {}).get(method, place))
                interval = None if np.isnan(width) else width
                axes.errorbar(mean, place, xerr=interval, capsize=2, **style)
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
        axes.set_title(literal_text(shortened(quantity, 20)))
    for axes in panels.flat[len(quantities) :]:
        axes.set_axis_off()
    most = 18 if figure.get_figwidth() < 5 else 36
    names = [literal_text(shortened(method, most)) for method in table["method"]]
    for axes in panels[:, 0]:
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel("accuracy (%)", fontsize=8)


def comparison_height(width: float, *, panels: int, methods: int) -> float:
    """Return the height of a comparison in inches: each row of panels has a line per method."""
    rows = math.ceil(panels / _panel_columns(width, panels))
    return 0.3 + rows * (0.42 + ROW * max(methods, 3))


def _panel_columns(width: float, panels: int) -> int:
    return min(panels, 2 if width < 5 else 4)


def shortened(name: str, most: int = 36) -> str:
    """Return a name of at most `most` characters; the middle of a longer one is cut out."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[most // 2 + 1 - most :]}"
