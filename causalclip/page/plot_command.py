"""Write figures and LaTeX tables of the results below a folder: `causalclip plot`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from causalclip.errors import sentence
from causalclip.files.atomic import replacing
from causalclip.files.text import visible
from causalclip.page.figures import Plot, cost_figures, run_figures, study_figures
from causalclip.page.options import ALL, FIGURE_KINDS, PAPER, TABLES, plot_parser
from causalclip.page.study import Study
from causalclip.plots.style import WIDTHS, write_figure
from causalclip.report.formats import file_stem, latex_table
from causalclip.report.seeds import main_scores
from causalclip.report.tables import result_tables

OF_TABLES = ("comparison", "fewshot", "cost")
"""Kinds that have a figure for each table or protocol."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files and print their names; return 2 on an error, such as nothing to draw."""
    args = plot_parser().parse_args(arguments)
    folder = args.to or args.output / "figures"
    try:
        study = Study.read(args.output)
        written = []
        plots = _selected_plots(args, study)
        for plot in _once(study, plots) if args.kind == PAPER else plots:
            name = "" if args.kind == PAPER and plot.kind not in OF_TABLES else plot.title
            path = folder / f"{file_stem(f'{plot.kind} {name}')}.{args.format}"
            size = plot.size(WIDTHS[args.width])
            figure = write_figure(path, plot.draw, *plot.data, size=size, first=plot.first)
            written.append(figure)
        if args.kind in (TABLES, ALL):
            written += write_latex_tables(study.scores, folder)
        if not written:
            raise ValueError(f"nothing below {args.output} makes a figure of {args.kind}")
    except (ValueError, OSError) as error:
        print(f"causalclip plot: {sentence(error)}", file=sys.stderr)
        return 2
    for problem in study.problems:
        print(f"left out: {visible(problem)}", file=sys.stderr)
    print(*(f"wrote {path}" for path in written), sep="\n")
    return 0


def write_latex_tables(scores: pd.DataFrame, folder: Path) -> list[Path]:
    """Write each table of the scores to a separate .tex file; return the paths."""
    written = []
    for title, table in result_tables(scores):
        path = folder / f"table_{file_stem(title)}.tex"
        with replacing(path) as part:
            part.write_text(latex_table(title, table), encoding="utf-8")
        written.append(path)
    return written


def _once(study: Study, plots: Iterable[Plot]) -> Iterator[Plot]:
    """Yield all figures of tables, and of each other kind that of the best method's first run."""
    main = main_scores(study.scores)
    means = main.groupby("method")["value"].mean()
    places = {study.numbers[str(m)]: k for k, m in enumerate(means.sort_values().index[::-1])}
    best: dict[str, Plot] = {}
    for plot in plots:
        if plot.kind in OF_TABLES:
            yield plot
        elif plot.kind not in best or places.get(plot.first, len(places)) < places.get(
            best[plot.kind].first, len(places)
        ):
            best[plot.kind] = plot
    yield from best.values()


def _selected_plots(args: argparse.Namespace, study: Study) -> Iterator[Plot]:
    kinds = set(FIGURE_KINDS) if args.kind in (ALL, PAPER) else {args.kind}
    scores = study.scores
    if args.methods:
        scores = scores[scores.trainer.isin(args.methods)]
    yield from (plot for plot in study_figures(study, scores) if plot.kind in kinds)
    yield from (plot for plot in cost_figures(study) if plot.kind in kinds)
    if kinds <= {"overview", *OF_TABLES, TABLES}:
        return
    for run in study.runs:
        if not args.methods or run.result.trainer in args.methods:
            answers = None if run.file in study.broken else run.answers()
            plots = run_figures(study, run, answers)
            yield from (plot for plot in plots if plot.kind in kinds)
