"""The command `causalclip run`: a protocol for lists of methods, data sets, seeds and shots."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from causalclip.runs.nearest import unknown
from causalclip.runs.perform import perform, planned, show, table
from causalclip.runs.plan import PlanError, Request, check
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import BUNDLED_DATA, methods, names

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+|USE_CUDA|VERBOSE")
"""A key of the configuration: CDC is a method, TRAINER.CDC.M a key."""

EXAMPLES = """examples:
  causalclip run base2new --methods ZeroshotCLIP CDC --datasets handwritten_digits --seeds 1
  causalclip run base2new --methods MaPLe CDC --data /data --dry-run
  causalclip run xd --methods CoOp --datasets dtd eurosat --data /data
  causalclip run fewshot --methods CoOp --datasets dtd --shots 1 16 --data /data
  causalclip run lodo --methods CLIP_ICM --datasets causal_shapes --shots 16 OPTIM.MAX_EPOCH 5

protocols:
""" + "\n".join(
    f"  {name:10} {p.title}: {', '.join(part.name for part in p.parts)}"
    for name, p in PROTOCOLS.items()
)


def parser() -> argparse.ArgumentParser:
    """The options; what follows them is KEY VALUE pairs for the configuration."""
    p = argparse.ArgumentParser(
        description="Everything a protocol asks for, then its table. What is finished is skipped.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("protocol", metavar="PROTOCOL", help=", ".join(PROTOCOLS))
    add("--methods", nargs="+", metavar="NAME", default=[], help="trainers (required)")
    add("--datasets", nargs="+", metavar="NAME", default=[], help="default: the published table's")
    add("--seeds", nargs="+", metavar="N", default=["1", "2", "3"], help="default: 1 2 3")
    add("--shots", nargs="+", metavar="N", default=[], help="images a class (default: published)")
    add("--backbone", default="", help="a file of configs/backbones/ in place of the recipe's CLIP")
    add("--source", default="imagenet", help="data set to train on for xd and dg")
    add("--data", type=Path, help="folder of the data sets (default: $DATA; for bundled sets data)")
    add("--output", type=Path, default=Path("output"), help="where results go (default: output)")
    add("--cfg", default="", help="configuration in place of the published recipe, without .yaml")
    add("--load-epoch", default="", help="epoch that tests load (default: best, else last)")
    add("--dry-run", action="store_true", help="print the commands and run nothing")
    add("--brief", action="store_true", help="one line an epoch on the screen (log.txt has all)")
    add("--no-table", action="store_true", help="print no table at the end")
    add("settings", nargs="*", metavar="KEY VALUE", help="for example OPTIM.LR 0.002")
    _complete(p)
    return p


def _names(known: Iterable[str]) -> Callable[..., list[str]]:
    return lambda **_: list(known)


def _complete(p: argparse.ArgumentParser) -> None:
    """Names that the shell completes (argcomplete)."""
    known = {"protocol": list(PROTOCOLS), "methods": methods(), "backbone": names("backbones")}
    known["datasets"] = known["source"] = names("datasets")
    for action in p._actions:
        if action.dest in known:
            action.completer = _names(known[action.dest])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    KEY VALUE pairs begin at the first word that is a key: no list takes them for its own.
    """
    start = next((i for i, word in enumerate(arguments) if KEY.fullmatch(word)), len(arguments))
    args = parser().parse_args(arguments[:start])
    if args.settings:
        raise PlanError(f"KEY VALUE pairs begin with a key, got {' '.join(args.settings)}")
    args.settings = arguments[start:]
    return args


def request(args: argparse.Namespace) -> Request:
    """What the command line asks for.

    Raises:
        PlanError: no such protocol, or no methods named.
    """
    if args.protocol not in PROTOCOLS:
        raise PlanError(unknown("protocol", args.protocol, PROTOCOLS))
    if not args.methods:
        raise PlanError(f"--methods must name one or more of {' '.join(methods())}")
    protocol = PROTOCOLS[args.protocol]
    return Request(
        protocol,
        methods=tuple(args.methods),
        datasets=tuple(args.datasets) or protocol.datasets,
        seeds=tuple(args.seeds),
        shots=tuple(args.shots),
        output=args.output,
        recipe=args.cfg,
        backbone=args.backbone,
        source=args.source,
        load_epoch=args.load_epoch,
        settings=tuple(args.settings),
    )


def with_data(asked: Request, data: Path | None) -> Request:
    """The data's folder: as given, or $DATA; the bundled sets are built in ./data without one.

    Raises:
        PlanError: it is not given, or no folder.
    """
    source = (asked.source,) if asked.protocol.transfers else ()
    bundled = all(name.startswith(BUNDLED_DATA) for name in (*source, *asked.datasets))
    given = data or (Path(os.environ["DATA"]) if os.environ.get("DATA") else None)
    if given is None and not bundled:
        raise PlanError("where are the data sets? Give --data FOLDER, or set DATA")
    if given is None:
        Path("data").mkdir(exist_ok=True)
    folder = given or Path("data")
    if not folder.is_dir():
        raise PlanError(f"the folder of the data sets, {folder}, is not there")
    return replace(asked, data=folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a protocol; 2 for what cannot be run, 1 where a run failed."""
    try:
        args = parse(sys.argv[1:] if arguments is None else list(arguments))
        asked = request(args)
        check(asked)
        asked = asked if args.dry_run else with_data(asked, args.data)
        runs = planned(asked, dry=args.dry_run)
    except PlanError as error:
        print(f"causalclip run: {error}", file=sys.stderr)
        return 2
    if args.dry_run:
        show(runs)
        return 0
    status = perform(runs, shortened=args.brief)
    if args.no_table:
        return status
    chosen = ("--protocol", asked.protocol.name, "--trainer", *asked.methods)
    return table(asked.results, *chosen) or status
