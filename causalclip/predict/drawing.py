"""An explanation as a picture: what the tower sees, and a map over it for each reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalclip.files.atomic import replacing
from causalclip.predict.explain import Explanation

COLOURS = "PuOr_r"  # orange for, purple against: told apart by colour-blind readers too
PANEL = 2.2  # inches


def drawn(explanation: Explanation) -> Figure:
    """The picture and its maps side by side, each map on a scale of its own around 0."""
    count = 1 + len(explanation.maps)
    figure = Figure(figsize=(PANEL * count, PANEL + 0.5), layout="constrained")
    first, *panels = np.atleast_1d(figure.subplots(1, count))
    first.imshow(explanation.picture)
    answer = explanation.answer
    _title(first, f"{answer.classname}, p {answer.probability:.2f}\nu {answer.uncertainty:.2g}")
    grey = explanation.picture.mean(axis=-1)
    size = grey.shape[0]
    for axes, (name, values) in zip(panels, explanation.maps.items(), strict=True):
        largest = float(np.abs(values).max()) or 1.0
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1)
        axes.imshow(
            values,
            cmap=COLOURS,
            vmin=-largest,
            vmax=largest,
            alpha=0.6,
            extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        )
        _title(axes, f"{name}\nfor {explanation.classname}")
    return figure


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9)
    axes.set_axis_off()


def save(explanation: Explanation, path: str | Path) -> None:
    """Write the figure as a PNG, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(Path(path)) as part:
        drawn(explanation).savefig(part, format="png", dpi=150)
