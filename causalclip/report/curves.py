"""Few-shot curves: accuracy against the number of training images a class, one file a table."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pandas as pd

from causalclip.report.groups import by_name
from causalclip.report.plots_study import draw_fewshot
from causalclip.report.plots_style import write_figure


def draw_curves(scores: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a PNG and a PDF of each few-shot table: mean and standard deviation over seeds.

    Raises:
        ValueError: nothing to draw, because no result has a number of shots.
    """
    rows = scores[(scores.protocol == "fewshot") & (scores.shots > 0)]
    if rows.empty:
        raise ValueError("no few-shot result to plot: `causalclip run fewshot` makes some")
    return [
        write_figure(partial(draw_fewshot, rows=part), folder / f"{slug(table)}.{suffix}")
        for table, part in by_name(rows, "table")
        for suffix in ("png", "pdf")
    ]


def slug(table: str) -> str:
    """A file name of a table's title."""
    return re.sub(r"[^a-z0-9]+", "_", table.lower()).strip("_")
