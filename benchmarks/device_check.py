"""Compare each method's run on a GPU with the same run on the CPU, in fp32.

    python benchmarks/device_check.py [--device cuda | cpu] [--methods CoOp ...]

The world is that of `causalclip check`: a random CLIP of twelve blocks a tower and drawn images.
Prints each method's largest difference of a probability; the status is 1 if one is above 1e-2.
CLIP-ICM's does not affect the status, because so few images leave its subspace undetermined.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys

import numpy as np

from causalclip import plugin
from causalclip.checks.trainer import registered_trainers, small_world
from causalclip.checks.world import Subject

MOST = 1e-2


def main() -> int:
    """Print the table; return the exit status."""
    p = argparse.ArgumentParser(description="Compare runs on a GPU with runs on the CPU.")
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    p.add_argument("--methods", nargs="+", help="default: all")
    args = p.parse_args()
    plugin.register_all()
    failed = []
    print("| method | largest difference of a probability |\n|---|---|")
    with small_world() as world:
        for name in args.methods or registered_trainers():
            subject = Subject(name, world)
            with contextlib.redirect_stdout(io.StringIO()):
                runs = [subject.run("USE_CUDA", on) for on in (False, args.device == "cuda")]
            one, other = (run.answers["probabilities"] for run in runs)
            difference = float(np.abs(one - other).max())
            print(f"| {name} | {difference:.1e} |", flush=True)
            if not difference <= MOST and name != "CLIP_ICM":
                failed.append(name)
    if failed:
        print(f"differ by more than {MOST:g}: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
