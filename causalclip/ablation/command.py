"""The command `causalclip run ablation`: all tables and figures of a method from one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from causalclip.ablation.cdc import CDC
from causalclip.ablation.clip_icm import CLIP_ICM
from causalclip.ablation.planning import Planner, Row, distinct
from causalclip.ablation.variants import Ablation
from causalclip.runs.local import Local
from causalclip.runs.nearest import unknown
from causalclip.runs.pairs import divided
from causalclip.runs.perform import INTERRUPTED, perform, show, with_data
from causalclip.runs.plan import PlanError, Request, check
from causalclip.runs.recipes import recipe

ABLATIONS: dict[str, Ablation] = {"CDC": CDC, "CLIP_ICM": CLIP_ICM}
SPLITS = ("val", "test")


def _described() -> str:
    lines = ["tables and figures:"]
    for method, ablation in ABLATIONS.items():
        lines.append(f"  {method}:")
        lines += [f"    {name:14} {table.title}" for name, table in ablation.tables.items()]
    return "\n".join(lines)


EXAMPLES = f"""examples:
  causalclip run ablation --method CDC --jobs 2
  causalclip run ablation --method CDC --tables components templates --seeds 1 --dry-run
  causalclip run ablation --method CDC --dataset dtd --data /data --split test
  causalclip run ablation --method CLIP_ICM --dataset coloured_digits --backbone tiny_coloured

{_described()}
"""


def parser() -> argparse.ArgumentParser:
    """The options; what follows them is KEY VALUE pairs for the method that is ablated."""
    p = argparse.ArgumentParser(
        prog="causalclip run ablation",
        description="A method with its parts changed one at a time: tables and figures.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("--method", metavar="NAME", default="", help=f"{' or '.join(ABLATIONS)} (required)")
    add("--tables", nargs="+", metavar="NAME", default=[], help="these tables and figures only")
    add("--dataset", default="", help="default: handwritten_digits, which is bundled")
    add("--split", choices=SPLITS, default="val", help="default: val, because an ablation chooses")
    add("--seeds", nargs="+", metavar="N", default=[], help="default: 1 2 3; of CLIP_ICM 1")
    add("--shots", default="", metavar="N", help="images a class (default: the protocol's)")
    add("--backbone", default="", help="a file of configs/backbones/ in place of the recipe's CLIP")
    add("--cfg", default="", help="configuration in place of the published recipe, without .yaml")
    add("--data", type=Path, help="folder of the data sets (default: $DATA; for bundled sets data)")
    add("--output", type=Path, default=Path("output"), help="where results go (default: output)")
    add("--dry-run", action="store_true", help="print the plan and run nothing")
    add("--jobs", type=int, default=1, metavar="N", help="processes at a time (default: 1)")
    add("--threads", type=int, default=1, metavar="N", help="of each process (default: 1)")
    add("--gpus-per-run", type=float, default=0, metavar="X", help="GPUs of each, or a part of one")
    return p


def request(args: argparse.Namespace, settings: Sequence[str]) -> Request:
    """The method as it is, by the ablation's protocol.

    Raises:
        PlanError: an unknown method, data set, configuration, seed or number of images.
    """
    if args.method not in ABLATIONS:
        raise PlanError(unknown("method of an ablation", args.method, ABLATIONS))
    ablation = ABLATIONS[args.method]
    protocol, dataset = ablation.protocol(args.split), args.dataset or ablation.dataset
    shots = args.shots or protocol.shots[0]
    asked = Request(
        protocol,
        methods=(args.method,),
        datasets=(dataset,),
        seeds=tuple(args.seeds) or ablation.seeds,
        shots=(shots,),
        output=args.output,
        recipe=args.cfg or recipe(args.method, ablation.recipe_of, dataset, shots),
        backbone=args.backbone,
        settings=tuple(settings),
    )
    check(asked)
    return asked


def chosen(args: argparse.Namespace) -> list[str]:
    """The tables that were asked for, all without a list.

    Raises:
        PlanError: one that the method's ablation does not have.
    """
    known = ABLATIONS[args.method].tables
    for name in args.tables:
        if name not in known:
            raise PlanError(unknown("table", name, known, of=args.method))
    return list(dict.fromkeys(args.tables)) or list(known)


def main(arguments: Sequence[str]) -> int:
    """Run an ablation; 2 for what cannot be run, 1 where a run failed."""
    try:
        words, settings = divided(arguments)
        args = parser().parse_args(words)
        asked, names = request(args, settings), chosen(args)
        asked = asked if args.dry_run else with_data(asked, args.data)
        engine = Local(args.jobs, args.threads, args.gpus_per_run, "runs")
        engine.check()
        planner = Planner(asked, args.dry_run)
        tables = rows_of(planner, ABLATIONS[args.method], names)
    except PlanError as error:
        print(f"causalclip run ablation: {error}", file=sys.stderr)
        return 2
    runs = distinct(row for rows in tables.values() for row in rows)
    if args.dry_run:
        show(runs, asked.results, args.jobs)
        return 0
    status = perform(runs, engine)
    return status if status == INTERRUPTED else report(asked, args.split, tables) or status


def rows_of(planner: Planner, ablation: Ablation, names: Sequence[str]) -> dict[str, list[Row]]:
    """The rows of each table.

    Raises:
        PlanError: a row that cannot be run; names the table and the row.
    """
    reference = planner.reference()
    return {name: planner.rows(ablation.tables[name], name, reference) for name in names}


def report(asked: Request, split: str, tables: Mapping[str, Sequence[Row]]) -> int:
    """Print the tables, write them and draw the figures; 1 where one has no result."""
    from causalclip.ablation.reporting import Report

    method, dataset, shots = asked.methods[0], asked.datasets[0], asked.shots[0]
    folder = asked.results / "ablation" / method / dataset / f"shots_{shots}" / f"report_{split}"
    place = f"{method} on {dataset}{', ' + asked.backbone if asked.backbone else ''}"
    made = Report(ABLATIONS[method], place, split, folder)
    failed = False
    for name, rows in tables.items():
        failed |= not made.table(name, rows)
    print(f"\nTables and figures: {folder}")
    return int(failed)
