"""The command `causalclip run`: a protocol for lists of methods, data sets, seeds and shots."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from causalclip.runs.identity import flat
from causalclip.runs.local import Local
from causalclip.runs.nearest import unknown
from causalclip.runs.pairs import KEY, parse
from causalclip.runs.perform import INTERRUPTED, perform, planned, show, table, with_data
from causalclip.runs.plan import PlanError, Request, Run, check
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import methods, names
from causalclip.runs.worker import Show

if TYPE_CHECKING:
    from causalclip.runs.ray_engine import Ray

ABLATION = "ablation"
"""In place of a protocol: a command of its own, causalclip/ablation/."""

SETTINGS = "for example OPTIM.LR 0.002; {dataset}, {seed}, {shots} and {target} are the run's"

EXAMPLES = """examples:
  causalclip run base2new --methods ZeroshotCLIP CDC --datasets handwritten_digits --seeds 1
  causalclip run base2new --methods MaPLe CDC --data /data --dry-run
  causalclip run xd --methods CoOp --datasets dtd eurosat --data /data
  causalclip run fewshot --methods CoOp --datasets dtd --shots 1 16 --data /data
  causalclip run lodo --methods CLIP_ICM --datasets causal_shapes --shots 16 OPTIM.MAX_EPOCH 5

tables and figures of a method's parts:
  causalclip run ablation --help

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
    add("protocol", metavar="PROTOCOL", help=", ".join([*PROTOCOLS, ABLATION]))
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
    add("--grid", action="append", default=[], metavar="KEY=V1,V2", help="sweep a setting; again")
    add("--dry-run", action="store_true", help="print the plan and run nothing")
    add("--engine", choices=["local", "ray"], default="local", help="this machine, or a cluster")
    add("--address", default="", metavar="HOST:PORT", help="of a Ray cluster (docs/scale.md)")
    add("--jobs", type=int, metavar="N", help="at a time (default: 1; ray: as many as have room)")
    add("--threads", type=int, default=1, metavar="N", help="of each process (default: 1)")
    add("--gpus-per-run", type=float, default=0, metavar="X", help="GPUs of each, or a part of one")
    add(
        "--show",
        choices=["all", "epochs", "runs"],
        help="on the screen: all that a run prints, a line an epoch, or its end (log.txt has all)",
    )
    add("--no-table", action="store_true", help="print no table at the end")
    add("settings", nargs="*", metavar="KEY VALUE", help=SETTINGS)
    _complete(p)
    return p


def _names(known: Iterable[str]) -> Callable[..., list[str]]:
    return lambda **_: list(known)


def _complete(p: argparse.ArgumentParser) -> None:
    """Names that the shell completes (argcomplete)."""
    known = {
        "protocol": [*PROTOCOLS, ABLATION],
        "methods": methods(),
        "backbone": names("backbones"),
    }
    known["datasets"] = known["source"] = names("datasets")
    for action in p._actions:
        if action.dest in known:
            setattr(action, "completer", _names(known[action.dest]))  # noqa: B010 argcomplete's


def request(args: argparse.Namespace) -> Request:
    """What the command line asks for.

    Raises:
        PlanError: no such protocol, or no methods named.
    """
    if args.protocol not in PROTOCOLS:
        raise PlanError(unknown("protocol", args.protocol, [*PROTOCOLS, ABLATION]))
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


def engine_of(args: argparse.Namespace) -> Local | Ray:
    """Who does the runs, and what each of them gets.

    Raises:
        PlanError: Ray is asked for and not installed, or a cluster without it.
    """
    if args.engine == "local":
        if args.address:
            raise PlanError(f"--address {args.address} is for --engine ray")
        jobs = 1 if args.jobs is None else args.jobs
        return Local(jobs, args.threads, args.gpus_per_run, args.show or shown(jobs))
    try:
        from causalclip.runs.ray_engine import Ray
    except ImportError as error:
        said = f"--engine ray needs Ray ({error}): pip install 'causalclip[ray]'"
        raise PlanError(said) from error
    return Ray(args.address, args.jobs, args.threads, args.gpus_per_run, args.show or "runs")


def shown(jobs: int) -> Show:
    """One run alone is seen in full; of several at a time only the end of each."""
    return "all" if jobs == 1 else "runs"


def grid(sweeps: Sequence[str]) -> list[tuple[str, ...]]:
    """KEY VALUE pairs of every point of a grid; one empty point without a grid.

    Raises:
        PlanError: something that is no KEY=V1,V2, or a key that does not exist.
    """
    axes = []
    for text in sweeps:
        key, _, values = text.partition("=")
        if not KEY.fullmatch(key) or not values:
            raise PlanError(f"--grid must be KEY=V1,V2, got {text}")
        listed = re.split(r",(?![^\[(]*[\])])", values)  # not inside of brackets
        axes.append([(key, value) for value in listed])
    if axes:
        check_keys([axis[0][0] for axis in axes])
    return [sum(point, ()) for point in itertools.product(*axes)]


def check_keys(keys: Sequence[str]) -> None:
    """Raise for a key that the configuration does not have.

    Raises:
        PlanError: names the key, and the nearest.
    """
    from causalclip import plugin  # here: it brings torch along

    plugin.register_all()
    cfg = plugin.default_cfg()
    known = list(flat(cfg))
    for key in keys:
        if key not in known:
            near = get_close_matches(key, known)
            raise PlanError(f"no setting {key}; did you mean {' or '.join(near) or 'another'}?")


def sweep(asked: Request, points: Sequence[tuple[str, ...]], *, dry: bool) -> list[Run]:
    """The runs of every point of a grid, each folder once."""
    runs = {}
    for point in points:
        for run in planned(replace(asked, settings=(*asked.settings, *point)), dry=dry):
            runs.setdefault(run.folder, run)
    return list(runs.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a protocol or an ablation; 2 for what cannot be run, 1 where a run failed."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == [ABLATION]:
        from causalclip.ablation.command import main as ablate

        return ablate(arguments[1:])
    try:
        args = parse(arguments, parser())
        asked = request(args)
        check(asked)
        asked = asked if args.dry_run else with_data(asked, args.data)
        engine = engine_of(args)
        runs = sweep(asked, grid(args.grid), dry=args.dry_run)
        if not args.dry_run:
            engine.check()
    except PlanError as error:
        print(f"causalclip run: {error}", file=sys.stderr)
        return 2
    if args.dry_run:
        show(runs, asked.results, args.jobs or 1)
        return 0
    status = perform(runs, engine)
    if args.no_table or status == INTERRUPTED:
        return status
    chosen = ("--protocol", asked.protocol.name, "--trainer", *asked.methods)
    return table(asked.results, *chosen) or status
