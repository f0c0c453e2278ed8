"""Tables of the page, with cells that can be sorted, link to runs and mark the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from causalclip.report.formats import best_cells, text_cells

Link = Callable[[str, str], tuple[str, str]]
"""(method, column) -> target of a cell's link ("" for none), and words that filter the runs."""


@dataclass(frozen=True)
class PageCell:
    """A cell: its text, and the value by which it is sorted."""

    text: str
    value: float | str = ""
    best: bool = False
    worst: bool = False
    """Whether this is the domain on which the method of the row is worst."""
    link: str = ""
    runs: str = ""
    """Words by which the table of runs is filtered, if `link` leads to it."""
    title: str = ""
    colour: str = ""
    """Colour of the method that the cell names."""
    share: float = 0
    """Strength of the background colour, in [0, 1]."""

    @property
    def numeric(self) -> bool:
        """Whether the cell is right-aligned and sorted as a number."""
        return isinstance(self.value, float)


@dataclass(frozen=True)
class PageTable:
    """A table with a title, and a note below it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[PageCell]]
    note: str = ""
    readings: Mapping[str, Sequence[Sequence[PageCell]]] = field(default_factory=dict)
    """Rows of a method's other readings, by its name; they are folded below its row."""

    @property
    def numeric(self) -> list[bool]:
        """Which columns contain numbers."""
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

    If the columns are `domains`, the worst one of each row is marked.
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
    """Return the domain with the lowest mean; empty for fewer than two domains."""
    columns = [c.removesuffix(" sd") for c in map(str, row.index) if c.endswith(" sd")]
    means = row[[c for c in columns if c not in ("average", "worst")]].dropna()
    return str(means.astype(float).idxmin()) if len(means) > 1 else ""


def metric_table(title: str, metrics: Mapping[str, Mapping[str, float]]) -> PageTable:
    """Return the metrics of readings, parts or members, one per row, without marking the best."""
    frame = pd.DataFrame([{"method": name, **values} for name, values in metrics.items()])
    names = [name for name in frame.columns if name != "method"]
    table = score_table(title, frame.astype(dict.fromkeys(names, float)))
    rows = [without_best(row) for row in table.rows]
    return PageTable(title, ["", *table.columns[1:]], rows)


def without_best(row: Sequence[PageCell]) -> list[PageCell]:
    """Return the row without marks of the best cells."""
    return [replace(cell, best=False) for cell in row]


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> PageTable:
    """Return a table of plain values; numbers are sorted as numbers, other values as text."""
    return PageTable(title, columns, [[_plain_cell(value) for value in row] for row in rows])


def _plain_cell(value: Any) -> PageCell:
    if isinstance(value, PageCell):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return PageCell(str(value), str(value))
    return PageCell(f"{value:g}", float(value))
