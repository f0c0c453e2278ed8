"""Tables of the page: cells that sort, link to their runs and mark the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from causalclip.report.formats import best_cells, text_cells

Link = Callable[[str, str], tuple[str, str]]
"""(method, column) -> the target of a cell's link, empty for none, and words that select runs."""


@dataclass(frozen=True)
class PageCell:
    """A cell: its text, and the value by which it is sorted."""

    text: str
    value: float | str = ""
    best: bool = False
    worst: bool = False
    """The domain of its row on which the method is worst."""
    link: str = ""
    runs: str = ""
    """Words that select rows of the table of runs, to which `link` leads."""
    title: str = ""
    colour: str = ""
    """Of the method that the cell names."""
    share: float = 0
    """In [0, 1], shown as a tint."""

    @property
    def numeric(self) -> bool:
        """Whether it is right-aligned and sorted as a number."""
        return isinstance(self.value, float)


@dataclass(frozen=True)
class PageTable:
    """A table with a title, and a note below it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[PageCell]]
    note: str = ""
    readings: Mapping[str, Sequence[Sequence[PageCell]]] = field(default_factory=dict)
    """Rows folded below the row of a method: its other readings."""

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [any(row[place].numeric for row in self.rows) for place in range(len(self.columns))]


def score_table(
    title: str,
    table: pd.DataFrame,
    *,
    link: Link = lambda *_: ("", ""),
    domains: bool = False,
    note: str = "",
) -> PageTable:
    """Return a table of `causalclip.report.tables`: mean ± deviation, the interval on hover.

    `domains` are the columns of a table whose worst domain is marked in each row.
    """
    cells = text_cells(table)
    best, columns, rows = best_cells(table, cells), list(cells.columns), []
    for number, (_, row) in enumerate(table.iterrows()):
        texts, stars = cells.iloc[number].astype(str), best.iloc[number]
        worst = _worst_domain(row) if domains else ""
        rows.append([_score_cell(row, c, texts[c], stars[c], c == worst, link) for c in columns])
    return PageTable(title, columns, rows, note)


def _score_cell(
    row: pd.Series, column: str, text: str, best: bool, worst: bool, link: Link
) -> PageCell:
    value, method = row[column], str(row.get("method", ""))
    if not isinstance(value, float):
        target, runs = link(method, "") if column == "method" else ("", "")
        return PageCell(
            text, value if isinstance(value, str) else float(value), False, False, target, runs
        )
    target, runs = link(method, column) if not math.isnan(value) else ("", "")
    half = row.get(f"{column} ci95", math.nan)
    title = "" if pd.isna(half) else f"95 % interval {value - half:.1f} to {value + half:.1f}"
    return PageCell(text, value, bool(best), worst, target, runs, title)


def _worst_domain(row: pd.Series) -> str:
    """Return the domain with the lowest mean; empty if there are not several."""
    columns = [c.removesuffix(" sd") for c in map(str, row.index) if c.endswith(" sd")]
    means = row[[c for c in columns if c not in ("average", "worst")]].dropna()
    return str(means.astype(float).idxmin()) if len(means) > 1 else ""


def metric_table(title: str, metrics: Mapping[str, Mapping[str, float]]) -> PageTable:
    """Return the metrics of several readings, parts or members, a row each, none marked as best."""
    frame = pd.DataFrame([{"method": name, **values} for name, values in metrics.items()])
    names = [name for name in frame.columns if name != "method"]
    table = score_table(title, frame.astype(dict.fromkeys(names, float)))
    rows = [without_best(row) for row in table.rows]
    return PageTable(title, ["", *table.columns[1:]], rows)


def without_best(row: Sequence[PageCell]) -> list[PageCell]:
    """Return a row that takes no part in a comparison."""
    return [replace(cell, best=False) for cell in row]


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> PageTable:
    """Return a table of texts and numbers, which are sorted as such."""
    return PageTable(title, columns, [[_plain_cell(value) for value in row] for row in rows])


def _plain_cell(value: Any) -> PageCell:
    if isinstance(value, PageCell):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return PageCell(str(value), str(value))
    return PageCell(f"{value:g}", float(value))
