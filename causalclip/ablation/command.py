"""The command `causalclip run ablation`: all tables and figures of a method's ablation."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

from causalclip.ablation.tables import Ablation, Planner, Row, distinct
from causalclip.errors import UserError, prints_errors, unknown
from causalclip.runs import flags
from causalclip.runs.executor import executor_of
from causalclip.runs.perform import perform, request_of, with_data
from causalclip.runs.progress import print_commands, print_plan
from causalclip.runs.protocols import Protocol
from causalclip.runs.request import Request, check

ABLATIONS = {method: Ablation.of(method) for method in ("CDC", "CLIP_ICM")}


def _described() -> str:
    lines = ["tables and figures:"]
    for method, ablation in ABLATIONS.items():
        lines.append(f"  {method}:")
        lines += [f"    {name:14} {table.title}" for name, table in ablation.tables.items()]
    return "\n".join(lines)


_EXAMPLES = f"""examples:
  causalclip run ablation --methods CDC --jobs 2
  causalclip run ablation --methods CDC --tables components templates --seeds 1 --dry-run
  causalclip run ablation --methods CDC --datasets dtd --data /data --split test
  causalclip run ablation --methods CLIP_ICM --datasets coloured_digits --backbone tiny_coloured

{_described()}
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options and of KEY VALUE pairs for the method."""
    p = argparse.ArgumentParser(
        prog="causalclip run ablation",
        description="A method with its parts changed one at a time: tables and figures.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[flags.request_flags(), flags.output_flags(), flags.executor_flags()],
    )
    add = p.add_argument
    known = " or ".join(ABLATIONS)
    add("--methods", nargs=1, metavar="NAME", default=[""], help=f"{known} (required)")
    add("--tables", nargs="+", metavar="NAME", default=[], help="these tables and figures only")
    split = "images that are measured (default: val, to choose settings without test images)"
    add("--split", choices=("val", "test"), default="val", help=split)
    p.set_defaults(source="", imports=[])
    flags.add_settings(p)
    return p


def request(args: argparse.Namespace) -> Request:
    """Return the request of the ablation's protocol for the method.

    Raises:
        UserError: an unknown method, data set, configuration, seed or number of images.
    """
    (method,) = args.methods
    if method not in ABLATIONS:
        raise UserError(unknown("method of an ablation", method, ABLATIONS))
    for name in ("datasets", "shots"):
        if len(getattr(args, name)) > 1:
            raise UserError(
                f"an ablation takes one of --{name}, got {' '.join(getattr(args, name))}"
            )
    ablation = ABLATIONS[method]
    protocol: Protocol = ablation.function("protocol")(args.split)
    args.datasets = args.datasets or [ablation.dataset]
    args.seeds = args.seeds or ablation.seeds
    args.shots = args.shots or protocol.shots[:1]
    asked = request_of(args, protocol)
    asked = replace(asked, output=args.output, recipe_of=ablation.recipe_of)
    check(asked)
    return asked


def chosen(args: argparse.Namespace) -> list[str]:
    """Return the names of the requested tables; all if --tables is not given.

    Raises:
        UserError: one that the method's ablation does not have.
    """
    (method,) = args.methods
    known = ABLATIONS[method].tables
    for name in args.tables:
        if name not in known:
            raise UserError(unknown("table", name, known, of=method))
    return list(dict.fromkeys(args.tables)) or list(known)


@prints_errors("run ablation")
def main(arguments: Sequence[str]) -> int:
    """Run an ablation; return 2 if it cannot be run, 1 if a run failed or a result is missing."""
    args = flags.parse(arguments, parser())
    asked, names = request(args), chosen(args)
    dry = args.dry_run or args.commands
    asked = with_data(asked, args.data, dry=dry)
    executor = executor_of(args)
    executor.check()
    planner, tables = Planner(asked, dry), ABLATIONS[asked.methods[0]].tables
    reference = planner.reference()
    rows = {name: planner.rows(tables[name], name, reference) for name in names}
    runs = distinct(row for rows_of_table in rows.values() for row in rows_of_table)
    if dry:
        (print_commands if args.commands else print_plan)(runs)
        return 0
    status = perform(runs, executor)
    return status if status > 1 else report(asked, args.split, rows) or status


def report(asked: Request, split: str, tables: Mapping[str, Sequence[Row]]) -> int:
    """Print and write the tables and draw the figures; return 1 if one lacks a result."""
    from causalclip.ablation.reporting import Report

    method, dataset, shots = asked.methods[0], asked.datasets[0], asked.shots[0]
    folder = asked.results / "ablation" / method / dataset / f"shots_{shots}" / f"report_{split}"
    place = f"{method} on {dataset}{', ' + asked.backbone.name if asked.backbone else ''}"
    made = Report(ABLATIONS[method], place, split, folder)
    complete = [made.table(name, rows) for name, rows in tables.items()]
    print(f"\nTables and figures: {folder}")
    return int(not all(complete))
