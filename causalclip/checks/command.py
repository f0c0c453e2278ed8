"""`causalclip check`: whether trainers keep what every run relies on."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence

from causalclip.runs.flags import add_imports
from causalclip.runs.nearest import unknown


def parser() -> argparse.ArgumentParser:
    """Which trainers, and by which configuration."""
    p = argparse.ArgumentParser(
        prog="causalclip check",
        description="Check trainers, your own too, on a very small random CLIP and a few drawn "
        "images: settings, resume, identity, other classes, NaN, precision, determinism.",
    )
    p.add_argument("trainers", nargs="*", metavar="METHOD", help="default: all registered trainers")
    add_imports(p)
    p.add_argument(
        "--config-file",
        action="append",
        default=[],
        help="configuration of the method, in place of its defaults; may be repeated",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a check; 1 if one failed, 2 for a mistake in the command."""
    args = parser().parse_args(argv)
    try:
        return 1 if check_all(args) else 0
    except (ValueError, OSError, ImportError, KeyError) as error:
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"causalclip check: error: {said}", file=sys.stderr)
        return 2


def check_all(args: argparse.Namespace) -> int:
    """Check one trainer after the other; how many checks failed.

    Raises:
        ValueError: an unknown trainer, or none of causalclip's.
        ImportError: a module that cannot be imported.
        OSError: a configuration file that is not there.
    """
    from causalclip import plugin  # after the parser: importing torch takes seconds
    from causalclip.checks.trainer import outcomes, registered_trainers, small_world

    plugin.register_all()
    for module in args.imports:
        plugin.register(importlib.import_module(module))
    known, failed = registered_trainers(), 0
    for name in args.trainers:
        if name not in known:
            raise ValueError(unknown("trainer", name, known))
    with small_world() as world:
        for name in args.trainers or known:
            print(name)
            start = time.perf_counter()
            for outcome in outcomes(name, world, args.config_file):
                print(f"  {outcome}", flush=True)
                failed += outcome.verdict == "fail"
            print(f"  {time.perf_counter() - start:.1f} s")
    return failed
