"""Tables for a paper: LaTeX with booktabs, the best of each column in bold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from causalclip.files.atomic import replacing
from causalclip.page.cells import Cell, Table, of_frame
from causalclip.report.curves import slug
from causalclip.report.summarize import tables

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "--",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex_tables(scores: pd.DataFrame, folder: Path) -> list[Path]:
    """Write each table of the scores as a .tex file of its own; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for title, frame in tables(scores):
        path = folder / f"table_{slug(title)}.tex"
        with replacing(path) as part:
            part.write_text(latex(of_frame(title, frame)), encoding="utf-8")
        written.append(path)
    return written


def latex(table: Table) -> str:
    r"""A `table` environment; it needs \usepackage{booktabs} alone."""
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    seeds = "seeds" in table.columns
    caption = escaped(table.title) + (r" (mean $\pm$ standard deviation over seeds)" * seeds)
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{slug(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _line([escaped(column) for column in table.columns]),
            r"\midrule",
            *(_line([_cell(cell) for cell in row]) for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """The text, without what LaTeX would take for a command."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], text)


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else text


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
