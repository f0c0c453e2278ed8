"""The command `causalclip run`: run a protocol for methods, data sets, seeds and shots."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from causalclip.errors import UserError, prints_errors, unknown
from causalclip.records.identity import has_result
from causalclip.records.results import PROTOCOL_TITLES, RESULTS_FILE
from causalclip.runs import flags
from causalclip.runs.executor import executor_of
from causalclip.runs.perform import perform, planned, print_table, request_of, with_data
from causalclip.runs.plan import Run, recipe_notes
from causalclip.runs.progress import print_commands, print_plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import methods
from causalclip.runs.request import Request, check

ABLATION = "ablation"
"""Word in place of a protocol, for a separate command; see causalclip/ablation/."""

_EXAMPLES = """examples:
  causalclip run base2new --methods ZeroshotCLIP CDC --datasets handwritten_digits --seeds 1
  causalclip run base2new --methods MaPLe CDC --data /data --dry-run
  causalclip run xd --methods CoOp --datasets dtd eurosat --data /data
  causalclip run fewshot --methods CoOp --datasets dtd --shots 1 16 --data /data
  causalclip run base2new --methods CoOp CDC --datasets ./photos pets.csv --backbone ViT-B/32
  causalclip run lodo --methods CLIP_ICM --datasets causal_shapes --shots 16 OPTIM.MAX_EPOCH 5

tables and figures of a method's parts:
  causalclip run ablation --help

protocols:
""" + "\n".join(
    f"  {name:10} {PROTOCOL_TITLES[name]}: {', '.join(part.name for part in p.parts)}"
    for name, p in PROTOCOLS.items()
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options and of KEY VALUE pairs."""
    p = argparse.ArgumentParser(
        description="Run the trainings and tests of a protocol and print its table; finished "
        "runs are skipped.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[
            flags.methods_flags(),
            flags.request_flags(),
            flags.output_flags(),
            flags.executor_flags(),
        ],
    )
    add = p.add_argument
    add("protocol", metavar="PROTOCOL", help=", ".join([*PROTOCOLS, ABLATION]))
    add("--load-epoch", default="", help="epoch that tests load (default: best, else last)")
    add(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="sweep a setting; may be repeated",
    )
    add("--show", choices=["all", "runs"], default="runs", help="all: print each run's log too")
    add(
        "--ensemble",
        type=int,
        default=1,
        metavar="M",
        help="train M times with the same images and other starts; the mean of their probabilities "
        "is a row of its own",
    )
    add("--no-table", action="store_true", help="print no table at the end")
    add("--cost", action="store_true", help="show learnable parameters, seconds and memory")
    flags.add_settings(p)
    return p


def request(args: argparse.Namespace) -> Request:
    """Return the request of the parsed options.

    Raises:
        UserError: no such protocol, or no methods given.
    """
    if args.protocol not in PROTOCOLS:
        raise UserError(unknown("protocol", args.protocol, [*PROTOCOLS, ABLATION]))
    if not args.methods:
        raise UserError(f"--methods must name one or more of {' '.join(methods())}")
    asked = request_of(args, PROTOCOLS[args.protocol])
    return replace(asked, output=args.output, load_epoch=args.load_epoch)


def grid(sweeps: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the KEY VALUE pairs of each point of a grid; without a grid, one empty point.

    Raises:
        UserError: a word that is not KEY=V1,V2.
    """
    axes = []
    for text in sweeps:
        key, _, values = text.partition("=")
        if not flags.KEY.fullmatch(key) or not values:
            raise UserError(f"--grid must be KEY=V1,V2, got {text}")
        listed = re.split(r",(?![^\[(]*[\])])", values)  # not at commas inside brackets
        axes.append([(key, value) for value in listed])
    return [sum(point, ()) for point in itertools.product(*axes)]


def sweep(
    asked: Request, points: Sequence[tuple[str, ...]], *, dry: bool, starts: int = 1
) -> tuple[list[Run], dict[Path, list[Path]]]:
    """Return the runs of each grid point and random start, each folder once, and the ensembles.

    The ensembles map the folder of an ensemble's result to the folders of its members.
    """
    runs, ensembles = {}, {}
    others = [("TRAIN.START", str(number)) for number in range(1, starts)]
    for point in points:
        each = [
            planned(replace(asked, settings=(*asked.settings, *point, *start)), dry=dry)
            for start in [(), *others]
        ]
        for run in itertools.chain(*each):
            runs.setdefault(run.folder, run)
        for members in zip(*each, strict=True) if others else ():
            folder = members[0].folder
            fused = folder.parent.with_name(f"{folder.parent.name},ENSEMBLE={starts}")
            ensembles[fused / folder.name] = [run.folder for run in members]
    return list(runs.values()), ensembles


def check_ensemble(asked: Request, starts: int) -> None:
    """Raise for a wrong size of the ensemble, or for a method without a random start.

    Raises:
        UserError: names the method, or the number.
    """
    if starts < 1:
        raise UserError(f"--ensemble must be 1 or more, got {starts}")
    if starts == 1:
        return
    from causalclip.runs.configuration import trainer_class  # imports torch

    for method in asked.methods:
        if not hasattr(trainer_class(method), "optimizer"):
            raise UserError(
                f"--ensemble needs methods that learn from a random start, got {method}"
            )


def write_ensembles(ensembles: Mapping[Path, Sequence[Path]]) -> None:
    """Write the mean of each ensemble whose members all have results, unless it is up to date.

    Raises:
        UserError: members that cannot be fused.
        OSError: a folder that cannot be written.
    """
    from causalclip.report.fuse import fuse_runs  # imports NumPy

    for folder, members in ensembles.items():
        if not all(map(has_result, members)):
            continue
        written = [(place / RESULTS_FILE).stat().st_mtime_ns for place in members]
        if has_result(folder) and (folder / RESULTS_FILE).stat().st_mtime_ns >= max(written):
            continue
        fuse_runs(members, fusion="probabilities").write(folder)


@prints_errors("run")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a protocol; return 2 for invalid input, 1 if a run failed, 130 or 143 if stopped."""
    args = flags.parse(sys.argv[1:] if arguments is None else arguments, parser())
    asked = request(args)
    check(asked)
    dry = args.dry_run or args.commands
    asked = with_data(asked, args.data, dry=dry)
    executor = executor_of(args)
    check_ensemble(asked, args.ensemble)
    runs, ensembles = sweep(asked, grid(args.grid), dry=dry, starts=args.ensemble)
    if not dry:
        executor.check()
    if not args.commands:
        print(*recipe_notes(asked), sep="\n")
    if dry:
        (print_commands if args.commands else print_plan)(runs)
        return 0
    status = perform(runs, executor, args.show)
    write_ensembles(ensembles)
    if args.no_table or status > 1 or not any(has_result(run.folder) for run in runs):
        return status
    fused = [f"{method} x{args.ensemble}" for method in asked.methods if ensembles]
    chosen = ("--protocol", asked.protocol.name, "--methods", *asked.methods, *fused)
    cost = ["--cost"] if args.cost else []
    return print_table(asked.results, *chosen, *cost) or status
