"""`causalclip features`: encode images ahead of the runs that read their features.

What is encoded is what the runs of a protocol would: the same images, interventions, weights and
precision, under the same keys. Any number of processes share the work, here (`--workers`) or where
the same command is given again, on another machine with the same cache too.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from causalclip.engine.cache_size import entries, feature_home, features_folder
from causalclip.files.caches import cache_home
from causalclip.runs.domains import domains_of
from causalclip.runs.local import gpus
from causalclip.runs.pairs import parse
from causalclip.runs.perform import with_data
from causalclip.runs.plan import PlanError, Request, Run, check, plan
from causalclip.runs.protocols import PROTOCOLS

READERS = ("ZeroshotCLIP", "LinearProbe", "TipAdapter", "CLIP_ICM")
EXAMPLES = """examples:
  causalclip features --dataset handwritten_digits --shots 16 --seeds 1
  causalclip features --dataset dtd --backbone vit_l14 --data /data --workers 8
  causalclip features --dataset domainbed_pacs --protocol lodo --methods CLIP_ICM --data /data
"""


def parser() -> argparse.ArgumentParser:
    """The options; what follows them is KEY VALUE pairs for the configuration."""
    p = argparse.ArgumentParser(
        prog="causalclip features",
        description="Encode images ahead of the runs that read their features. Stopped or killed, "
        "the same command goes on.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("--dataset", "--datasets", dest="datasets", nargs="+", metavar="NAME", required=True)
    add("--backbone", default="", help="a file of configs/backbones/ in place of the recipe's CLIP")
    add("--methods", nargs="+", metavar="NAME", default=list(READERS), help="who will read them")
    add("--protocol", choices=PROTOCOLS, default="fewshot", help="whose runs (default: fewshot)")
    add("--seeds", nargs="+", metavar="N", default=["1", "2", "3"], help="default: 1 2 3")
    add("--shots", nargs="+", metavar="N", default=[], help="images a class (default: published)")
    add("--source", default="imagenet", help="data set to train on for xd and dg")
    add("--data", type=Path, help="folder of the data sets (default: $DATA; for bundled sets data)")
    add("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    add("settings", nargs="*", metavar="KEY VALUE", help="for example DATALOADER.NUM_WORKERS 8")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Encode; 2 for a mistake in the input, which is said in one line."""
    argv = sys.argv[1:] if argv is None else list(argv)
    start = time.perf_counter()
    try:
        args = parse(argv, parser())
        asked = with_data(request(args), args.data)
        runs = plan(asked, lambda name: domains_of(name, asked.data))
        with helpers(argv, args.workers - 1):
            encode(runs)
    except (ValueError, OSError) as error:
        print(f"causalclip features: error: {error}", file=sys.stderr)
        return 2
    folder = features_folder(cache_home())
    seconds = time.perf_counter() - start
    print(f"{len(entries(folder))} sets of features in {folder}, {seconds:.1f} s")
    return 0


def request(args: argparse.Namespace) -> Request:
    """What the command line asks for, checked.

    Raises:
        PlanError: a name that is not known, no workers, or a cache that is switched off.
    """
    if args.workers < 1:
        raise PlanError(f"--workers must be positive, got {args.workers}")
    if feature_home() is None:
        raise PlanError("CAUSALCLIP_NO_CACHE is set: no feature would be kept")
    asked = Request(
        PROTOCOLS[args.protocol],
        methods=tuple(args.methods),
        datasets=tuple(args.datasets),
        seeds=tuple(args.seeds),
        shots=tuple(args.shots),
        backbone=args.backbone,
        source=args.source,
        settings=tuple(args.settings),
    )
    check(asked)
    return asked


@contextmanager
def helpers(argv: Sequence[str], count: int) -> Iterator[None]:
    """So many more processes at the same work, each on a GPU of its own as far as there are some.

    One that dies is missed by nobody: what it had begun is done by the others.
    """
    devices = gpus() if count else []
    command = [sys.executable, "-m", "causalclip", "features", *argv, "--workers", "1"]
    started = []
    for number in range(1, count + 1):
        seen = {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {}
        surroundings = {**os.environ, **seen, "TQDM_DISABLE": "1"}  # our bar counts for all
        started.append(subprocess.Popen(command, env=surroundings, stdout=subprocess.DEVNULL))
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[0]
    try:
        yield
        for process in started:
            process.wait()
    finally:
        for process in started:
            process.kill()
            process.wait()


def encode(runs: Sequence[Run]) -> None:
    """Bring into the cache what these runs will read from it."""
    for number, run in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {run.folder}", flush=True)
        with redirect_stdout(io.StringIO()):  # what a trainer says of itself
            trainer = built(run)
            trainer.encoder = replace(trainer.encoder, shared=True)
            trainer.encode_ahead()


def built(run: Run) -> Any:
    """The trainer of a run.

    Raises:
        PlanError: settings that it cannot be built with, or a package that is missing.
    """
    from dassl.engine import build_trainer  # here: they bring torch along
    from dassl.utils import set_random_seed

    from causalclip import plugin
    from causalclip.runs import flags, train

    plugin.register_all()
    try:
        cfg = train.configure(flags.parser().parse_args(run.arguments))
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)
    except train.BUILD_ERRORS as error:
        raise PlanError(train.sentence(error)) from error
