"""One style for all figures, and their files: PNG to look at, SVG to print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler

matplotlib.use("Agg")  # no display is needed to write files
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart by every kind of colour vision; yellow is left out, for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*<>"  # beside the colour, where classes are more than colours
STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "image.cmap": "cividis",  # even in brightness, and for every kind of colour vision
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.hashsalt": "causalclip",  # the same file from every run
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the one style."""
    with plt.rc_context(STYLE):
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg, and close the figure; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})
    plt.close(figure)
    return paths
