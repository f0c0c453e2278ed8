"""Kills workers of `causalclip run` at random moments.

In the end every result must be there, whole, once, and the one that an undisturbed run leaves.

    python benchmarks/engine_faults.py FOLDER [--kills 20] [--seed 1]

A run that is killed twice in one command is given up by it: the command is called again, as a user
would, until nothing is left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

LINE = (
    "run base2new --methods CoOp CoCoOp --datasets handwritten_digits --seeds 1 2 --shots 4 "
    "--jobs 2 --no-table OPTIM.MAX_EPOCH 8 TRAIN.CHECKPOINT_FREQ 1 USE_CUDA False"
)


def start(folder: Path, output: str) -> subprocess.Popen:
    """The command, with its output in a file."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    folders = ["--data", str(folder / "data"), "--output", str(folder / output)]
    command = [sys.executable, "-m", "causalclip", *LINE.split(), *folders]
    with open(folder / f"{output}.txt", "a", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def workers(process: subprocess.Popen) -> list[int]:
    """The processes that it has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()] if children.exists() else []


def disturbed(folder: Path, kills: int, draw: random.Random) -> int:
    """Call the command until it is done, killing its workers; how often it was called."""
    calls = 0
    while True:
        calls += 1
        process = start(folder, "killed")
        while process.poll() is None:
            time.sleep(draw.uniform(1, 12))
            there = workers(process)
            if kills and there:
                os.kill(draw.choice(there), signal.SIGKILL)
                kills -= 1
        if not process.returncode:
            return calls


def compared(folder: Path) -> dict[str, int]:
    """Results that are equal, differ or are missing beside those of the undisturbed runs."""
    count = {"equal": 0, "different": 0, "missing": 0, "left over": 0}
    for path in sorted((folder / "alone").rglob("predictions.npz")):
        twin = folder / "killed" / path.relative_to(folder / "alone")
        if not twin.exists():
            count["missing"] += 1
            continue
        json.loads(twin.with_name("results.json").read_text())
        with np.load(path) as one, np.load(twin) as other:
            same = all(one[name].tobytes() == other[name].tobytes() for name in one.files)
        count["equal" if same else "different"] += 1
    count["left over"] = len(list((folder / "killed").rglob("*.part")))
    return count


def main() -> int:
    """Print the counts; 1 unless all results are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    start(args.folder, "alone").wait()
    calls = disturbed(args.folder, args.kills, random.Random(args.seed))
    count = compared(args.folder)
    print(f"{args.kills} kills, {calls} calls: {count}")
    return int(bool(count["different"] or count["missing"] or not count["equal"]))


if __name__ == "__main__":
    sys.exit(main())
