"""Tables from the results.json files below a folder; nothing is read from logs.

    causalclip summarize output
    causalclip summarize output --protocol base2new --format latex
    causalclip summarize output --compare CDC MaPLe
    causalclip summarize output --against
    causalclip summarize output --protocol fewshot --plot figures

Cells are mean ± standard deviation over seeds (population, as in the family's parse_test_res.py),
or with --ci95 mean ± half of the 95 % interval of the mean (Student's t). csv and json hold both.
The average HM is given both ways: the HM of the averages (as papers print it), and the average.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from causalclip.report.groups import by_name
from causalclip.report.protocols import PROTOCOLS
from causalclip.report.published_figures import against, load_figures, reference
from causalclip.report.runs import load_runs, unpaired
from causalclip.report.seeds import FAR, collapsed, compare, over_seeds, repeated
from causalclip.report.subspaces import subspaces
from causalclip.report.tables import average_over_datasets, scores

TABLE_FORMATS = {"markdown": "github", "latex": "latex_booktabs"}
SPREADS = {"sd": "mean ± standard deviation", "ci95": "mean ± half of the 95 % interval, Student t"}
Titled = list[tuple[str, pd.DataFrame]]


def tables(found: pd.DataFrame) -> Titled:
    """Every table that the scores hold, with a title."""
    made = [(name, over_seeds(part)) for name, part in by_name(found, "table")]
    pairs = found[found.protocol == "base2new"]
    count = pairs["dataset"].nunique()
    if count > 1:
        title = f"Base-to-novel: average over {count} data sets"
        made.append((title, average_over_datasets(pairs)))
    return made


# Printing


def shown(table: pd.DataFrame, spread: str = "sd") -> pd.DataFrame:
    """The table for reading: mean ± spread in one cell, - where there is nothing; as text."""
    out, digits = table.copy(), table.attrs.get("digits", 1)
    for column in [c for c in table.columns if f"{c} sd" in table.columns]:
        spreads = table.get(f"{column} {spread}", table[f"{column} sd"])
        several = ~table["seeds"].astype(str).isin(["1", ""])
        out[column] = [
            cell(mean, width if many else None, digits)
            for mean, width, many in zip(table[column], spreads, several, strict=True)
        ]
        out = out.drop(columns=[f"{column} sd", f"{column} ci95"], errors="ignore")
    for column in out.columns.intersection(["p", "smallest p"]):
        out[column] = [f"{p:.2g}" for p in out[column]]
    for column in out.select_dtypes("float"):
        out[column] = [cell(value, None, digits) for value in out[column]]
    return out


def cell(mean: float, width: float | None, digits: int) -> str:
    """One cell: mean ± width; the mean alone of a single seed."""
    if pd.isna(mean):
        return "-"
    return f"{mean:.{digits}f}" + ("" if width is None else f" ± {width:.{digits}f}")


def render(found: Titled, style: str, spread: str) -> str:
    """The tables as markdown, latex, csv (each under a comment line) or one json document."""
    if style == "json":
        rows = [(t, json.loads(table.to_json(orient="records"))) for t, table in found]
        return json.dumps([{"title": t, "rows": r} for t, r in rows], indent=1, ensure_ascii=False)
    if style == "csv":
        return "\n".join(f"# {title}\n{table.to_csv(index=False)}" for title, table in found)
    return "\n".join(readable(title, table, style, spread) for title, table in found)


def readable(title: str, table: pd.DataFrame, style: str, spread: str) -> str:
    """Title and table in markdown or LaTeX."""
    kind = f" ({SPREADS[spread]} over seeds)" if "seeds" in table else ""
    cells = shown(table, spread)
    text = tabulate(
        cells.to_dict("list"),
        headers="keys",
        tablefmt=TABLE_FORMATS[style],
        showindex=False,
        disable_numparse=True,
        colalign=["left", *["right"] * (len(cells.columns) - 1)],
    )
    return f"\n{title}{kind}\n\n{text}"


def warnings(runs: pd.DataFrame) -> list[str]:
    """What a reader must know before trusting a mean."""
    said = []
    for _, run in collapsed(runs).iterrows():
        said.append(
            f"{run.path.parent}: accuracy {run.accuracy:.1f} is more than {FAR:.0f} points below "
            f"the best of its seeds, {run.best:.1f}: collapsed?"
        )
    for _, run in unpaired(runs).iterrows():
        other = "new" if run.subsample == "base" else "base"
        beside = "beside it" + (f" with {run.setting}" if run.setting else "")
        said.append(f"{run.path.parent}: no result on the {other} classes {beside}, left out")
    for _, run in repeated(runs).iterrows():
        said.append(f"{run.path.parent}: another run of the same method, data and seed is counted")
    return said


def too_few(made: Titled) -> list[str]:
    """Comparisons that could not come out significant whatever the results."""
    return [
        f"{row.protocol}, {row.quantity}, {row.pairs}: with {row.wins + row.losses} pairs that "
        f"differ, p cannot be below {row['smallest p']:.2g}"
        for _, table in made
        for _, row in table.iterrows()
        if row["smallest p"] > 0.05
    ]


def without_figures(found: pd.DataFrame) -> list[str]:
    """The methods and protocols that no published figure is on file for."""
    there = found[["protocol", "trainer"]].drop_duplicates()
    return [
        f"no published figures of {trainer} for {PROTOCOLS[protocol].lower()}"
        for protocol, trainer in there.to_numpy().tolist()
        if trainer not in load_figures(protocol)
    ]


# Command line


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("root", type=Path, help="folder with results.json files below it")
    add("--protocol", choices=PROTOCOLS, help="this protocol only")
    add("--trainer", nargs="+", metavar="NAME", help="these trainers only")
    add("--format", choices=["markdown", "latex", "csv", "json"], default="markdown")
    add("--ci95", action="store_true", help="show the 95 %% interval in place of the deviation")
    add("--heldout", action="store_true", help="domains: the held-out part of the target only")
    add("--against", action="store_true", help="ours beside the published figures")
    add("--compare", nargs=2, metavar="METHOD", help="paired comparison, Wilcoxon signed-rank test")
    add("--plot", type=Path, metavar="DIR", help="write few-shot curves as PNG and PDF")
    return p


def selected(args: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs and scores that the options ask for.

    Raises:
        ValueError: no finished run, or none that makes a score; says what is missing.
    """
    runs = load_runs(args.root)
    if len(runs) and args.trainer:
        runs = runs[runs.trainer.isin(args.trainer)]
    if runs.empty:
        raise ValueError(f"no finished runs below {args.root}")
    found = scores(runs, heldout=args.heldout)
    if args.protocol:
        runs, found = (part[part.protocol == args.protocol] for part in (runs, found))
    if found.empty:
        what = PROTOCOLS[args.protocol] if args.protocol else "any protocol"
        message = f"no finished runs of {what} below {args.root}"
        raise ValueError("\n".join([message, *warnings(runs)]))
    return runs, found


def asked(args: argparse.Namespace, found: pd.DataFrame) -> Titled:
    """The tables that the options ask for."""
    if args.compare:
        first, second = args.compare
        return [(f"{first} minus {second}, paired", compare(found, first, second))]
    made = tables(found)
    if args.against:
        ours = against(found)
        for protocol in dict.fromkeys(found.protocol):
            others = reference(protocol)
            if len(others):
                ours.append((f"{PROTOCOLS[protocol]}: published averages, ViT-B/16", others))
        made += ours
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 2 when there is nothing to print."""
    args = parser().parse_args(argv)
    if not args.root.is_dir():
        print(f"causalclip summarize: {args.root} is not a folder", file=sys.stderr)
        return 2
    try:
        runs, found = selected(args)
        made = asked(args, found)
        written = plot(found, args.plot) if args.plot else []
    except (ValueError, OSError) as error:
        print(f"causalclip summarize: {error}", file=sys.stderr)
        return 2
    print(render(made, args.format, "ci95" if args.ci95 else "sd"))
    said = warnings(runs) + subspaces(runs) + [f"wrote {path}" for path in written]
    said += too_few(made) if args.compare else []
    said += without_figures(found) if args.against else []
    stream = sys.stdout if args.format == "markdown" else sys.stderr
    if said:
        print("", *said, sep="\n", file=stream)
    return 0


def plot(found: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw the few-shot curves; matplotlib is loaded only when asked for."""
    from causalclip.report.curves import draw_curves

    return draw_curves(found, folder)
