"""Panels of curves; Matplotlib draws them for papers, the page as small SVG elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from causalclip.plots.style import FAINT, dash_style, literal_text


@dataclass(frozen=True, eq=False)
class Curve:
    """A line through points; a point that is not finite is a gap."""

    x: ArrayLike
    """x of each point (N,)."""
    y: ArrayLike
    """y of each point (N,)."""
    name: str = ""
    """Label in the legend; empty for none."""
    number: int | None = None
    """Index of the line's colour and dash pattern; None for a faint dashed guide."""
    marked: bool = False
    """Whether each point has a dot."""
    text: str = ""
    """Text above the last point."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Curves in one pair of axes."""

    curves: Sequence[Curve]
    ylabel: str
    xlabel: str = ""
    """Label of the x axis. Panels below each other share the axis: only the last has a label."""
    x: tuple[float, float] | None = None
    """Limits of the x axis; None fits them to the points."""
    y: tuple[float | None, float | None] = (None, None)
    logarithmic: str = ""
    """Letters of the logarithmic axes: x, y or both."""
    whole: bool = False
    """Whether x is a count, with ticks at whole numbers only."""
    height: float = 1
    """Height relative to the other panels."""


def stairs(edges: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
    """Return the points (2 N + 2,) of a histogram's outline, with edges (N + 1,), values (N,)."""
    return np.repeat(edges, 2), np.concatenate([[0], np.repeat(values, 2), [0]])


def draw_panels(figure: Figure, panels: Sequence[Panel]) -> None:
    """Draw panels below each other."""
    ratios = [panel.height for panel in panels]
    places = figure.subplots(len(panels), 1, sharex=True, height_ratios=ratios, squeeze=False)
    for axes, panel in zip(places[:, 0], panels, strict=True):
        _draw_panel(axes, panel)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for curve in panel.curves:
        style: dict[str, Any] = {"color": FAINT, "linestyle": "--", "linewidth": 1}
        if curve.number is not None:
            style = dash_style(curve.number) | {"marker": "o" if curve.marked else ""}
        axes.plot(curve.x, curve.y, label=literal_text(curve.name), **style)
        if curve.text:
            end = float(np.asarray(curve.x)[-1]), float(np.asarray(curve.y)[-1])
            axes.annotate(curve.text, end, (0, 3), textcoords="offset points", ha="center")
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel, xlim=panel.x, ylim=panel.y)
    if panel.whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "x" in panel.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")
    if "y" in panel.logarithmic:
        axes.set_yscale("log")
    if any(curve.name for curve in panel.curves):
        axes.legend()
