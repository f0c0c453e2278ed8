"""An explanation as a picture: what the tower sees, and a map over it for each reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from causalclip.files.atomic import replacing
from causalclip.predict.explain import Explanation
from causalclip.report.plots_style import plain

COLOURS = "PuOr_r"  # orange for, purple against: told apart by colour-blind readers too
PANEL = 2.2  # inches
COLUMNS = 6  # panels side by side


def drawn(explanation: Explanation) -> Figure:
    """The picture and its maps side by side, each map on a scale of its own around 0."""
    count = 1 + len(explanation.maps)
    columns, rows = min(count, COLUMNS), -(-count // COLUMNS)
    figure = Figure(figsize=(PANEL * columns, (PANEL + 0.35) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(explanation.picture)
    answer = explanation.answer
    _title(panels[0], f"{answer.classname}, p {answer.probability:.2f}\nu {answer.uncertainty:.2g}")
    grey, shown = explanation.picture.mean(axis=-1), _what(explanation)
    for axes, (name, values) in zip(panels[1:], explanation.maps.items(), strict=False):
        _overlay(axes, grey, values)
        _title(axes, f"{name}\n{shown}")
    return figure


def _what(explanation: Explanation) -> str:
    return "attention" if explanation.kind == "attention" else f"for {explanation.classname}"


def _overlay(axes: Axes, grey: NDArray, values: NDArray) -> None:
    """A map (h, w) over a picture (R, R) in grey."""
    largest, size = float(np.abs(values).max()) or 1.0, grey.shape[0]
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
    axes.imshow(
        values,
        cmap=COLOURS,
        vmin=-largest,
        vmax=largest,
        alpha=0.6,
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
    )


def _title(axes: Axes, text: str) -> None:
    axes.set_title(plain(text), fontsize=9)


def save(explanation: Explanation, path: str | Path) -> None:
    """Write the figure as a PNG that says what it shows, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    said = {"Description": f"{explanation.answer.image}: {explanation}"}
    with replacing(Path(path)) as part:
        drawn(explanation).savefig(part, format="png", dpi=150, metadata=said)
