"""An ablation's figures in the style of all, and their files: PNG to look at, SVG to print."""

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

from causalclip.report.plots_style import COLOURS, on_paper, save_figure


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the one style; cividis is even in brightness, for every kind of colour vision."""
    own: dict[Any, Any] = {
        "axes.prop_cycle": cycler(color=COLOURS),
        "image.cmap": "cividis",
        "savefig.dpi": 150,
    }
    with plt.rc_context({**on_paper(), **own}):
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg, and close the figure; their paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        save_figure(figure, path, metadata={"Date": None} if path.suffix == ".svg" else {})
    plt.close(figure)
    return paths
