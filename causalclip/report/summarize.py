"""Print tables of the results.json files below a folder; logs are not read.

    causalclip summarize output
    causalclip summarize output --protocol base2new --format latex
    causalclip summarize output --compare CDC MaPLe
    causalclip summarize output --against
    causalclip summarize output --cost
    causalclip summarize output --protocol fewshot --plot figures

Cells are mean ± standard deviation over seeds (population, as in CoOp's parse_test_res.py),
or with --ci95 mean ± half of the 95 % interval of the mean (Student's t). csv and json hold both.
The average HM is given both ways: the HM of the averages (as papers print it), and the average.
--cost adds each method's means over the runs below the folder: learnable parameters, seconds and
images a second of a training, its peak memory (of the device, or of the process), and the images
a second of a test.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from causalclip.errors import prints_errors
from causalclip.files.text import visible
from causalclip.records.results import PROTOCOL_TITLES
from causalclip.report.costs import with_costs
from causalclip.report.formats import TABLE_FORMATS, file_stem, format_tables
from causalclip.report.notes import (
    subspace_notes,
    too_few_pairs,
    warnings,
    without_published_figures,
)
from causalclip.report.published_figures import compare_with_published, published_averages
from causalclip.report.runs import load_runs
from causalclip.report.seeds import compare_methods
from causalclip.report.tables import TitledTables, conformal_tables, result_tables, scores


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("root", type=Path, help="folder with results.json files below it")
    add("--protocol", choices=PROTOCOL_TITLES, help="this protocol only")
    add("--methods", nargs="+", metavar="NAME", help="these methods only")
    add("--format", choices=TABLE_FORMATS, default="markdown")
    add("--ci95", action="store_true", help="show the 95 %% interval in place of the deviation")
    add("--cost", action="store_true", help="add parameters, seconds, images/s and memory")
    add("--heldout", action="store_true", help="domains: the held-out part of the target only")
    add("--against", action="store_true", help="add published figures and the difference")
    add("--compare", nargs=2, metavar="METHOD", help="paired comparison, Wilcoxon signed-rank test")
    add("--conformal", action="store_true", help="conformal sets of runs with TEST.CONFORMAL")
    add("--plot", type=Path, metavar="DIR", help="write few-shot curves as PNG and PDF")
    return p


@prints_errors("summarize")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; return 2 if there is nothing to print."""
    args, problems = parser().parse_args(argv), list[str]()
    runs, selected = _selected(args, problems)
    tables = conformal_tables(runs) if args.conformal else _tables(args, selected)
    tables = with_costs(tables, runs) if args.cost else tables
    if not tables:
        raise ValueError(f"no conformal sets below {args.root}: run with TEST.CONFORMAL 0.1")
    written = write_curves(selected, args.plot) if args.plot else []
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(format_tables(tables, args.format, "ci95" if args.ci95 else "sd", width))
    for problem in problems:
        print(f"not shown: {problem}", file=sys.stderr)
    notes = warnings(runs) + subspace_notes(runs) + [f"wrote {path}" for path in written]
    notes += too_few_pairs(tables[0][1]) if args.compare else []
    notes += without_published_figures(selected) if args.against else []
    if notes:
        stream = sys.stdout if args.format == "markdown" else sys.stderr
        print("", *map(visible, notes), sep="\n", file=stream)
    return 0


def _selected(args: argparse.Namespace, problems: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the runs and scores that the options select; add what is left out to `problems`.

    Raises:
        ValueError: no folder, no finished run, or none that makes a score.
    """
    if not args.root.is_dir():
        raise ValueError(f"{args.root} is not a folder")
    runs = load_runs(args.root, problems)
    if len(runs) and args.methods:
        runs = runs[runs.trainer.isin(args.methods)]
    if runs.empty:
        raise ValueError("\n".join([f"no finished runs below {args.root}", *problems]))
    sources = args.protocol == "fewshot"
    selected = scores(runs, heldout=args.heldout, sources=sources, problems=problems)
    if args.protocol:
        runs, selected = (part[part.protocol == args.protocol] for part in (runs, selected))
    if selected.empty:
        protocol = PROTOCOL_TITLES[args.protocol] if args.protocol else "any protocol"
        message = f"no finished runs of {protocol} below {args.root}"
        raise ValueError("\n".join([message, *problems, *warnings(runs)]))
    return runs, selected


def _tables(args: argparse.Namespace, selected: pd.DataFrame) -> TitledTables:
    if args.compare:
        first, second = args.compare
        return [(f"{first} minus {second}, paired", compare_methods(selected, first, second))]
    tables = result_tables(selected)
    if args.against:
        tables += compare_with_published(selected)
        for protocol in dict.fromkeys(selected.protocol):
            averages = published_averages(protocol)
            if len(averages):
                backbone = "RN50" if protocol == "fewshot" else "ViT-B/16"
                title = f"{PROTOCOL_TITLES[protocol]}: published averages, {backbone}"
                tables.append((title, averages))
    return tables


def write_curves(scores: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a PNG and a PDF of each few-shot table: accuracy by number of shots.

    Raises:
        ValueError: nothing to draw, because no result has a number of shots.
    """
    # matplotlib is imported only for --plot.
    from causalclip.plots.study_plots import draw_fewshot, fewshot_height
    from causalclip.plots.style import WIDTHS, write_figure

    rows = scores[(scores.protocol == "fewshot") & (scores.shots > 0)]
    if rows.empty:
        raise ValueError("no few-shot result to plot: `causalclip run fewshot` makes some")
    return [
        write_figure(
            folder / f"{file_stem(str(title))}.{suffix}",
            draw_fewshot,
            part,
            size=(width := WIDTHS["column"], fewshot_height(width, methods=part.method.nunique())),
        )
        for title, part in rows.groupby("table", sort=False)
        for suffix in ("png", "pdf")
    ]
