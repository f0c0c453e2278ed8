"""Few-shot curves: accuracy against the number of training images a class, one file a table."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed to write files
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from causalclip.report.groups import by_name


def draw_curves(scores: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a PNG and a PDF of each few-shot table: mean and standard deviation over seeds.

    Raises:
        ValueError: nothing to draw, because no result has a number of shots.
    """
    rows = scores[(scores.protocol == "fewshot") & (scores.shots > 0)]
    if rows.empty:
        raise ValueError("no few-shot result to plot: run scripts/fewshot.sh first")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table, part in by_name(rows, "table"):
        figure = curve(part, title=table.removeprefix("Few-shot: "))
        for suffix in ("png", "pdf"):
            path = folder / f"{slug(table)}.{suffix}"
            figure.savefig(path, dpi=150, bbox_inches="tight")
            written.append(path)
        plt.close(figure)
    return written


def curve(rows: pd.DataFrame, *, title: str) -> Figure:
    """The figure of one table: a line a method."""
    figure, axes = plt.subplots(figsize=(4.5, 3.5))
    for method, part in by_name(rows, "method"):
        groups = part.groupby("shots")["value"]
        mean, sd = groups.mean(), groups.std(ddof=0)
        axes.errorbar(mean.index, mean, yerr=sd, marker="o", markersize=4, capsize=2, label=method)
    shots = sorted(rows["shots"].unique())
    axes.set_xticks(shots, [str(k) for k in shots])
    axes.set(xlabel="training images per class", ylabel="accuracy (%)", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def slug(table: str) -> str:
    """A file name of a table's title."""
    return re.sub(r"[^a-z0-9]+", "_", table.lower()).strip("_")
