"""Tables as the page shows them: cells that sort, link to their runs, and say which is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from causalclip.report.summarize import cell as cell_text

LOWER_IS_BETTER = ("ECE base", "ECE new", "ece", "nll", "brier", "aurc")
NOT_COMPARED = ("seeds", "data sets", "train s", "n", "wins", "ties", "losses", "published")
DOMAINS_END = ("average", "worst")
"""What stands beside the domains of a target in a table of leave one domain out."""

Link = Callable[[str, str], str]
"""(method, column) -> where a cell leads, empty for nowhere."""


@dataclass(frozen=True)
class Cell:
    """What is read, and by what it is sorted."""

    text: str
    value: float | str = ""
    best: bool = False
    worst: bool = False
    """Of its row: the domain a method does worst on."""
    link: str = ""
    title: str = ""

    @property
    def numeric(self) -> bool:
        """Whether it is right-aligned and sorted as a number."""
        return isinstance(self.value, float)


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [any(row[place].numeric for row in self.rows) for place in range(len(self.columns))]


def of_frame(
    title: str,
    frame: pd.DataFrame,
    *,
    link: Link = lambda *_: "",
    lodo: bool = False,
    note: str = "",
) -> Table:
    """A table of `causalclip.report.summarize.tables`: mean ± deviation, the interval on hover.

    Args:
        title: of the table.
        frame: with the columns `X sd` and `X ci95` beside X.
        link: where its cells lead.
        lodo: whether its columns are domains, of which the worst is marked in each row.
        note: what to say below it.
    """
    columns = [c for c in frame.columns if not c.endswith((" sd", " ci95"))]
    best = {column: _best(frame, column) for column in columns}
    rows = []
    for _, row in frame.iterrows():
        worst = _worst(row, columns) if lodo else ""
        rows.append([_cell(row, c, frame, best[c], worst=c == worst, link=link) for c in columns])
    return Table(title, columns, rows, note)


def _cell(
    row: pd.Series, column: str, frame: pd.DataFrame, best: str, *, worst: bool, link: Link
) -> Cell:
    value, method = row[column], str(row.get("method", ""))
    if not isinstance(value, float):
        number = isinstance(value, int) or hasattr(value, "dtype")
        where = link(method, "") if column == "method" else ""
        return Cell(str(value), float(value) if number else str(value), link=where)
    text = _printed(row, column, frame)
    half = row.get(f"{column} ci95", math.nan)
    return Cell(
        text,
        value,
        best=bool(best) and text.split(" ")[0] == best,
        worst=worst,
        link=link(method, column) if not math.isnan(value) else "",
        title="" if pd.isna(half) else f"95 % interval {value - half:.1f} to {value + half:.1f}",
    )


def _printed(row: pd.Series, column: str, frame: pd.DataFrame) -> str:
    if column in ("p", "smallest p"):
        return f"{row[column]:.2g}"
    several = str(row.get("seeds", "1")) not in ("1", "")
    width = row.get(f"{column} sd") if several else None
    return cell_text(row[column], width, frame.attrs.get("digits", 1))


def _best(frame: pd.DataFrame, column: str) -> str:
    """The best mean of a column as it is printed, so that what looks equal is equal; else empty."""
    one = column in NOT_COMPARED or len(frame) < 2 or "method" not in frame
    if one or not pd.api.types.is_float_dtype(frame[column]) or frame[column].isna().all():
        return ""
    chosen = frame[column].min() if column in LOWER_IS_BETTER else frame[column].max()
    return cell_text(chosen, None, frame.attrs.get("digits", 1))


def _worst(row: pd.Series, columns: Sequence[str]) -> str:
    domains = [
        c
        for c in columns
        if f"{c} sd" in row.index and c not in DOMAINS_END and not pd.isna(row[c])
    ]
    return min(domains, key=lambda c: row[c], default="") if len(domains) > 1 else ""


def of_metrics(title: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    """The metrics of several readings, parts or members, a row each."""
    frame = pd.DataFrame([{"method": name, **metrics} for name, metrics in rows.items()])
    names = [name for name in frame.columns if name != "method"]
    best = {name: _best_metric(frame, name) for name in names}
    cells = [
        [_plain(str(row["method"])), *_metric_cells(row, best)] for row in frame.to_dict("records")
    ]
    return Table(title, ["", *names], cells)


def _metric_cells(row: Mapping[Any, Any], best: Mapping[str, float]) -> Iterator[Cell]:
    for name, chosen in best.items():
        value = float(row[name])
        digits = 0 if name == "n" else 3 if name in ("nll", "brier", "aurc") else 1
        same = not math.isnan(chosen) and f"{value:.{digits}f}" == f"{chosen:.{digits}f}"
        yield Cell(cell_text(value, None, digits), value, best=same)


def _best_metric(frame: pd.DataFrame, name: str) -> float:
    if name in NOT_COMPARED or len(frame) < 2:
        return math.nan
    return float(frame[name].min() if name in LOWER_IS_BETTER else frame[name].max())


def of_rows(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Plain rows: numbers are sorted as such."""
    return Table(title, columns, [[_plain(value) for value in row] for row in rows])


def _plain(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return Cell(str(value), str(value))
    return Cell(f"{value:g}", float(value))
