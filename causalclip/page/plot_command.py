"""The command `causalclip plot`: figures and LaTeX tables of a study as files for a paper.

    causalclip plot reliability output --format pdf --width column
    causalclip plot fewshot output --format svg --to figures
    causalclip plot all output --method CDC
    causalclip plot tables output

Figures are in one style, in colours that colour-blind readers tell apart, with text that stays
text, as wide as a column (3.35 inches) or a page (6.9) of a paper. Tables use booktabs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from causalclip.page.figures import KINDS, Figure, run_figures, study_figures
from causalclip.page.latex import latex_tables
from causalclip.page.study import Study
from causalclip.report.curves import slug
from causalclip.report.plots_style import WIDTHS, write_figure

TABLES, ALL = "tables", "all"


def parser() -> argparse.ArgumentParser:
    """The options."""
    kinds = "\n".join(f"  {name:12} {text}" for name, text in KINDS.items())
    p = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"kinds:\n{kinds}\n  {TABLES:12} every table, in LaTeX with booktabs\n"
        f"  {ALL:12} all of these",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("kind", choices=[*KINDS, TABLES, ALL], metavar="KIND", help="what to draw, see below")
    add("output", type=Path, help="folder with results.json files below it")
    add("--format", choices=["pdf", "png", "svg"], default="pdf", help="default: pdf")
    add("--width", choices=list(WIDTHS), default="column", help="of a column or a page of a paper")
    add("--to", type=Path, metavar="DIR", help="where to write (default: OUTPUT/figures)")
    add("--method", nargs="+", metavar="NAME", default=[], help="these methods only")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files and name them; 2 where there is nothing to draw."""
    args = parser().parse_args(arguments)
    folder = args.to or args.output / "figures"
    try:
        study = Study.read(args.output)
        written = [*figures(args, study, folder)]
        if args.kind in (TABLES, ALL):
            written += latex_tables(study.scores, folder)
        if not written:
            raise ValueError(f"nothing below {args.output} makes a figure of {args.kind}")
    except (ValueError, OSError) as error:
        print(f"causalclip plot: {error}", file=sys.stderr)
        return 2
    for problem in study.problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(*(f"wrote {path}" for path in written), sep="\n")
    return 0


def figures(args: argparse.Namespace, study: Study, folder: Path) -> Iterator[Path]:
    """Write the figures that are asked for, one after the other."""
    for name, figure in asked(args, study):
        path = folder / f"{figure.kind}_{name}.{args.format}"
        yield write_figure(figure.draw, path, width=args.width, ratio=figure.height / figure.width)


def asked(args: argparse.Namespace, study: Study) -> Iterator[tuple[str, Figure]]:
    """The figures of the kind and methods that are asked for, each with a name of its own."""
    kinds = set(KINDS) if args.kind == ALL else {args.kind}
    scores = study.scores
    if args.method:
        scores = scores[scores.trainer.isin(args.method)]
    for figure in study_figures(scores):
        if figure.kind in kinds:
            yield slug(figure.title), figure
    if kinds <= {"comparison", "fewshot", TABLES}:
        return
    for run in study.runs:
        if not args.method or run.result.trainer in args.method:
            answers = None if run.file in study.broken else run.answers()
            for figure in run_figures(study, run, answers):
                if figure.kind in kinds:
                    yield slug(figure.title), figure
