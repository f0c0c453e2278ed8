"""Draw the curves of a run as SVG elements; Matplotlib would need about 0.1 s for each chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from causalclip.plots.panels import Curve, Panel
from causalclip.plots.style import DASHES, PALETTE

WIDTH, LEFT, RIGHT = 330.0, 44.0, 318.0
"""Width of a chart and x positions of both ends of its x axis, in pixels."""
ROW, GAP, BELOW = 15.0, 12.0, 34.0
"""Heights in pixels: a line of text, the gap between panels, the labels below the last panel."""
DASH_ARRAYS = dict(zip(DASHES, ("", "6 3", "7 2 2 2", "2 2"), strict=True))


@dataclass(frozen=True)
class Axis:
    """A map from values to pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    whole: bool = False

    def place(self, values: ArrayLike) -> NDArray:
        """Return the positions of values (N,) in pixels; not finite where a value has none."""
        values = np.asarray(values, dtype=float)
        low, high = self.low, self.high
        if self.logarithmic:
            values, low, high = np.log(values), math.log(low), math.log(high)
        return self.start + (values - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Positions in pixels and labels of a few round values."""
        round_ones = MaxNLocator(4, steps=[1, 2, 5, 10], integer=self.whole)
        locator = LogLocator(numticks=5) if self.logarithmic else round_ones
        values = [v for v in locator.tick_values(self.low, self.high) if self.low <= v <= self.high]
        return [(float(self.place(v)), f"{round(v, 12):g}") for v in values]


def axis(
    values: NDArray, limits: Sequence[float | None], start: float, end: float, **kind: bool
) -> Axis:
    """Return an axis with the given limits; None fits a limit to the values (N,), with a margin."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.05 * (high - low or 1)
    wide = (low - margin, high + margin)
    if kind["logarithmic"]:
        wide = (low * (low / high) ** 0.05, high * (high / low) ** 0.05)
    low, high = (end if limit is None else limit for end, limit in zip(wide, limits, strict=True))
    return Axis(low, high if high > low else low + 1, start, end, **kind)


def chart(panels: Sequence[Panel], *, height: float, first: int, label: str) -> dict[str, Any]:
    """Return the data that the template `chart.svg.j2` draws.

    Args:
        panels: the panels, from top to bottom.
        height: height of all panels and their gaps, in pixels.
        first: index of the first colour in `PALETTE`.
        label: text for a screen reader.
    """
    names = [(c.name, line_style(c.number, first)) for p in panels for c in p.curves if c.name]
    top = ROW * len(names) + GAP
    total = sum(panel.height for panel in panels)
    drawn = []
    for panel in panels:
        bottom = top + (height - GAP * len(panels)) * panel.height / total
        drawn.append(_drawn_panel(panel, top, bottom, first))
        top = bottom + GAP
    size = {"width": WIDTH, "height": top - GAP + BELOW, "left": LEFT, "right": RIGHT, "row": ROW}
    return {**size, "label": label, "names": names, "panels": drawn}


def _drawn_panel(panel: Panel, top: float, bottom: float, first: int) -> dict[str, Any]:
    x, y = (
        np.concatenate([np.asarray(getattr(curve, name), dtype=float) for curve in panel.curves])
        for name in "xy"
    )
    logarithmic = {name: name in panel.logarithmic for name in "xy"}
    sides = (None, None) if panel.x is None else panel.x
    across = axis(x, sides, LEFT, RIGHT, logarithmic=logarithmic["x"], whole=panel.whole)
    up = axis(y, panel.y, bottom, top, logarithmic=logarithmic["y"])
    lines = [_drawn_curve(curve, across, up, first) for curve in panel.curves]
    ends = {"top": top, "bottom": bottom, "xticks": across.ticks, "yticks": up.ticks}
    return {**ends, "xlabel": panel.xlabel, "ylabel": panel.ylabel, "lines": lines}


def _drawn_curve(curve: Curve, across: Axis, up: Axis, first: int) -> dict[str, Any]:
    x, y = across.place(curve.x), up.place(curve.y)
    line, dots = path(x, y, dots=False), path(x, y, dots=True) if curve.marked else ""
    end = (x[-1], y[-1] - 5, curve.text) if curve.text else None
    return {"style": line_style(curve.number, first), "line": line, "dots": dots, "end": end}


def line_style(number: int | None, first: int) -> dict[str, str]:
    """Return the colour and dash pattern of a curve; None is a faint dashed guide."""
    if number is None:
        return {"colour": "var(--faint)", "dashes": DASH_ARRAYS["--"]}
    colour = PALETTE[(first + number) % len(PALETTE)]
    return {"colour": colour, "dashes": DASH_ARRAYS[DASHES[number % len(DASHES)]]}


def path(x: NDArray, y: NDArray, *, dots: bool) -> str:
    """Return an SVG path (`d`) through points (N,), or a dot at each; gaps where not finite."""
    finite = np.isfinite(x) & np.isfinite(y)
    joined = finite[1:] & finite[:-1] & (not dots)  # each point but the first to the one before
    letters = np.where([False, *joined], "L", "M")
    points = zip(letters[finite], x[finite].tolist(), y[finite].tolist(), strict=True)
    return "".join(f"{letter}{a:.1f} {b:.1f}{'h0' if dots else ''}" for letter, a, b in points)
