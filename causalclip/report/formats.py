"""Tables as text: markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from causalclip.files.text import spreadsheet_cell, visible
from causalclip.report.costs import COST_COLUMNS
from causalclip.report.tables import CONFORMAL, TitledTables

TABLE_FORMATS = ("markdown", "latex", "csv", "json")
SPREADS = {"sd": "mean ± standard deviation", "ci95": "mean ± half of the 95 % interval, Student t"}
DIGITS = {"n": 0, "nll": 3, "brier": 3, "aurc": 3, "learnable": 0, "memory MiB": 0}
"""Decimals of some metrics; other metrics have `attrs["digits"]` of their table, or else 1."""
LOWER_IS_BETTER = ("ECE base", "ECE new", "ece", "nll", "brier", "aurc")
NOT_COMPARED = ("seeds", "data sets", "train s", "n", "published", *CONFORMAL, *COST_COLUMNS)

# pdflatex's default font has other characters for < > |, and \\ reads a [ or * as its argument.
LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",
        "*": "{*}",
        "±": r"$\pm$",
    }
)


def text_cells(table: pd.DataFrame, spread: str = "sd") -> pd.DataFrame:
    """Return a table as text: mean ± spread in one cell, the mean alone for a single seed."""
    cells, digits = table.copy(), int(table.attrs.get("digits", 1))
    for column in [c for c in table.columns if f"{c} sd" in table.columns]:
        spreads = table.get(f"{column} {spread}", table[f"{column} sd"])
        several = ~table["seeds"].astype(str).isin(["1", ""])
        cells[column] = [
            _cell_text(mean, digits, width if many else None)
            for mean, width, many in zip(table[column], spreads, several, strict=True)
        ]
        cells = cells.drop(columns=[f"{column} sd", f"{column} ci95"], errors="ignore")
    for column in cells.columns.intersection(["p", "smallest p"]):
        cells[column] = [f"{p:.2g}" for p in cells[column]]
    for column in map(str, cells.select_dtypes("float")):
        cells[column] = [_cell_text(v, DIGITS.get(column, digits)) for v in cells[column]]
    return cells.map(lambda cell: visible(cell) if isinstance(cell, str) else cell)


def _cell_text(mean: float, digits: int, width: float | None = None) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:.{digits}f}" + ("" if width is None else f" ± {width:.{digits}f}")


def best_cells(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return which cells of `text_cells(table)` have the best mean of their column, as printed.

    No cell is best in a table of one method, in a column that is not compared, or in the row of a
    method's other reading (`attrs["readings"]`).
    """
    best = pd.DataFrame(False, index=cells.index, columns=cells.columns)
    if "method" not in table:
        return best
    methods = ~table["method"].isin(table.attrs.get("readings", ()))
    if methods.sum() < 2:
        return best
    for column in cells.columns.difference([*NOT_COMPARED]):
        values = table[column].where(methods)
        if pd.api.types.is_float_dtype(values) and values.notna().any():
            row = values.argmin() if column in LOWER_IS_BETTER else values.argmax()
            means = cells[column].str.split(" ").str[0]
            best[column] = methods & (means == means.iloc[row])
    return best


def format_tables(
    tables: TitledTables, style: str, spread: str = "sd", width: int | None = None
) -> str:
    """Return the tables as markdown, latex, csv (each under a comment line) or one json document.

    Args:
        tables: with their titles.
        style: one of `TABLE_FORMATS`.
        spread: `sd` or `ci95`, for markdown and LaTeX; csv and json hold both.
        width: columns of the terminal; wider markdown tables are divided. None for any width.
    """
    if style == "json":
        rows = [(t, json.loads(table.to_json(orient="records"))) for t, table in tables]
        return json.dumps([{"title": t, "rows": r} for t, r in rows], indent=1, ensure_ascii=False)
    if style == "csv":
        safe = [(title, table.map(spreadsheet_cell)) for title, table in tables]
        return "\n".join(f"# {title}\n{table.to_csv(index=False)}" for title, table in safe)
    if style == "latex":
        return "\n".join(latex_table(title, table, spread) for title, table in tables)
    texts = []
    for title, table in tables:
        cells = text_cells(table, spread).replace(r"\|", r"\\|", regex=True)
        parts = "\n\n".join(_divided_markdown(cells, width))
        texts.append(f"\n{_caption(title, table, spread)}\n\n{parts}")
    return "\n".join(texts)


def _divided_markdown(cells: pd.DataFrame, width: int | None) -> Iterator[str]:
    """Yield the table, or parts of its columns that fit the width, each with the first column."""
    align = ["left", *["right"] * (len(cells.columns) - 1)]
    for stop in range(max(2, len(cells.columns)), 1, -1):
        text = cells.iloc[:, :stop].to_markdown(
            index=False, tablefmt="github", disable_numparse=True, colalign=align[:stop]
        )
        if stop == 2 or width is None or len(text.split("\n", 1)[0]) <= width:
            break
    yield text
    if stop < len(cells.columns):
        yield from _divided_markdown(cells.drop(columns=cells.columns[1:stop]), width)


def _caption(title: str, table: pd.DataFrame, spread: str) -> str:
    return title + (f" ({SPREADS[spread]} over seeds)" if "seeds" in table else "")


def latex_table(title: str, table: pd.DataFrame, spread: str = "sd") -> str:
    r"""Return a LaTeX `table`, no wider than the text, with the best of each column in bold.

    It needs only \usepackage{booktabs,graphicx}.
    """
    from causalclip.plots.study_plots import shortened  # loads matplotlib

    cells = text_cells(table, spread).astype(str)
    bold = np.where(best_cells(table, cells), "textbf:--rwrap;", "")
    is_text = [all(isinstance(v, str) for v in table[column]) for column in cells.columns]
    tabular = (
        cells.style.apply(lambda _: bold, axis=None)
        .format(lambda text: latex_text(shortened(str(text))))
        .format_index(lambda name: latex_text(str(name)), axis="columns")
        .hide(axis="index")
        .to_latex(hrules=True, column_format="".join("l" if text else "r" for text in is_text))
    )
    return rf"""% \usepackage{{booktabs,graphicx}}
\begin{{table}}
\centering
\caption{{{latex_text(_caption(title, table, spread))}}}
\label{{tab:{file_stem(title)}}}
\sbox0{{{tabular.strip()}}}%
\ifdim\wd0>\linewidth\resizebox{{\linewidth}}{{!}}{{\usebox0}}\else\usebox0\fi
\end{{table}}
"""


def latex_text(text: str) -> str:
    """Escape all characters that LaTeX would read as commands."""
    return text.translate(LATEX)


def file_stem(title: str) -> str:
    """Return a file name without suffix for the title of a table."""
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")
