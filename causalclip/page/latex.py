"""Tables for a paper: LaTeX with booktabs, the best of each column in bold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from causalclip.files.atomic import replacing
from causalclip.page.cells import Cell, Table, of_frame
from causalclip.report.curves import slug
from causalclip.report.plots_study import elided
from causalclip.report.summarize import tables

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",  # what LaTeX's own fonts have at these places is ¡, ¿ and a dash
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # \\ takes these two for its own when a row begins with them
    "*": "{*}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "→": r"$\rightarrow$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
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
    r"""A `table` environment, made smaller where it is wider than the text.

    It needs \usepackage{booktabs,graphicx} alone.
    """
    columns = "".join("r" if numeric else "l" for numeric in table.numeric)
    seeds = "seeds" in table.columns
    caption = escaped(table.title) + (r" (mean $\pm$ standard deviation over seeds)" * seeds)
    return "\n".join(
        [
            r"% \usepackage{booktabs,graphicx}",
            *_warning(table),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{slug(table.title)}}}",
            rf"\sbox0{{\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _line([escaped(column) for column in table.columns]),
            r"\midrule",
            *(_line([_cell(cell) for cell in row]) for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}}%",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            r"\end{table}",
            "",
        ]
    )


def _warning(table: Table) -> list[str]:
    """A comment for letters that pdflatex has in no font of its own."""
    texts = [table.title, *table.columns, *(cell.text for row in table.rows for cell in row)]
    known = {*map(chr, range(0x100)), *SPECIAL, *"\u2013\u2014\u2018\u2019\u201c\u201d"}
    other = sorted(set("".join(texts)) - known)
    return [f"% for xelatex, with a font that has {''.join(other)}"] if other else []


def escaped(text: str) -> str:
    """The text, without what LaTeX would take for a command."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], text)


def _cell(cell: Cell) -> str:
    text = escaped(elided(cell.text))
    return rf"\textbf{{{text}}}" if cell.best else text


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
