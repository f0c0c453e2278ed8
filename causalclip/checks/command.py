"""`causalclip check`: check that trainers follow the contract of the runs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from causalclip.errors import prints_errors, unknown
from causalclip.runs.flags import add_imports


def parser() -> argparse.ArgumentParser:
    """Return the parser of `causalclip check`."""
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


@prints_errors("check", KeyError)
def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per check; return 1 if one failed, 2 for a mistake in the command."""
    args = parser().parse_args(argv)
    from causalclip import plugin  # after the parser: importing torch takes seconds
    from causalclip.checks.trainer import outcomes, registered_trainers, small_world

    plugin.register_all()
    plugin.register_imports(args.imports)
    names, failed = registered_trainers(), 0
    for name in args.trainers:
        if name not in names:
            raise ValueError(unknown("trainer", name, names))
    with small_world() as world:
        for name in args.trainers or names:
            print(name)
            start = time.perf_counter()
            for outcome in outcomes(name, world, args.config_file):
                print(f"  {outcome}", flush=True)
                failed += outcome.verdict == "fail"
            print(f"  {time.perf_counter() - start:.1f} s")
    return int(failed > 0)
