"""Disturbs `causalclip run`: workers, a cluster's node and the driver killed, the disk full.

In the end every result must be there, whole, once, and the one that an undisturbed run leaves.

    python benchmarks/engine_faults.py FOLDER [--faults workers node driver disk] [--kills 20]
        [--seed 1] [--methods CoOp CoCoOp] [--epochs 8]

A run that is killed twice in one command is given up by it: the command is called again, as a user
would, until nothing is left. `node` and `driver` are on a Ray cluster on this machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ray_nodes import nodes

LINE = (
    "run base2new --datasets handwritten_digits --shots 4 --no-table "
    "TRAIN.CHECKPOINT_FREQ 1 USE_CUDA False"
)
SMALL_DISK = 8192  # bytes of a file


@dataclass(frozen=True)
class Trial:
    """One fault, and how it is tried."""

    folder: Path
    output: str
    methods: Sequence[str]
    epochs: int
    kills: int
    draw: random.Random

    def start(self, *options: str, file_bytes: int | None = None) -> subprocess.Popen:
        """The command, with its output in a file, and files of at most so many bytes."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        folders = ["--data", str(self.folder / "data"), "--output", str(self.folder / self.output)]
        what = ["--methods", *self.methods, "--seeds", "1", "2"]
        epochs = ["OPTIM.MAX_EPOCH", str(self.epochs)]
        words = [*LINE.split(), *what, *epochs, *folders, *options]
        command = [sys.executable, "-m", "causalclip", *words]
        limit = None if file_bytes is None else (file_bytes, file_bytes)
        with open(self.folder / f"{self.output}.txt", "a", encoding="utf-8") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        if limit is not None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit)
        return process

    def until_done(self, *options: str, disturb: Callable[[subprocess.Popen], None]) -> int:
        """Call the command until nothing is left to do; how often it was called."""
        for calls in itertools.count(1):
            process = self.start(*options)
            while process.poll() is None:
                time.sleep(self.draw.uniform(1, 12))
                disturb(process)
            if not process.returncode:
                return calls
        raise AssertionError


def killed_workers(trial: Trial) -> str:
    """Workers of the local engine are killed at random moments."""
    left = [trial.kills]

    def kill_one(process: subprocess.Popen) -> None:
        there = workers(process)
        if left[0] and there:
            os.kill(trial.draw.choice(there), signal.SIGKILL)
            left[0] -= 1

    calls = trial.until_done("--jobs", "2", disturb=kill_one)
    return f"{trial.kills - left[0]} killed, {calls} calls"


def workers(process: subprocess.Popen) -> list[int]:
    """The processes that it has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()] if children.exists() else []


def lost_node(trial: Trial) -> str:
    """A node at work is taken away without grace once a first result is there, and not replaced."""
    with nodes([1, 1, 1]) as cluster:

        def take_one(_process: subprocess.Popen) -> None:
            if len(cluster.worker_nodes) == 2 and results(trial.folder / trial.output):
                cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

        ray = ("--engine", "ray", "--address", str(cluster.address))
        calls = trial.until_done(*ray, disturb=take_one)
        return f"{2 - len(cluster.worker_nodes)} of 3 nodes lost, {calls} calls"


def killed_driver(trial: Trial) -> str:
    """The driver is killed after its first and its third result, and called again."""
    with nodes([1, 1]) as cluster:
        marks = [1, 3]

        def kill(process: subprocess.Popen) -> None:
            if marks and len(results(trial.folder / trial.output)) >= marks[0]:
                marks.pop(0)
                process.kill()

        ray = ("--engine", "ray", "--address", str(cluster.address))
        calls = trial.until_done(*ray, disturb=kill)
        return f"{2 - len(marks)} times killed, {calls} calls"


def full_disk(trial: Trial) -> str:
    """One training cannot write its files; then there is room again."""
    failed = trial.start(
        "--methods", trial.methods[0], "--seeds", "1", file_bytes=SMALL_DISK
    ).wait()
    assert failed == 1, f"a training without room for its files ended with status {failed}"
    calls = trial.until_done("--jobs", "2", disturb=lambda _process: None)
    return f"1 training without room, {1 + calls} calls"


def results(folder: Path) -> list[Path]:
    """The results that are there."""
    return sorted(folder.rglob("results.json"))


FAULTS = {
    "workers": killed_workers,
    "node": lost_node,
    "driver": killed_driver,
    "disk": full_disk,
}


def compared(alone: Path, disturbed: Path) -> dict[str, int]:
    """Results that are equal, differ or are missing beside those of the undisturbed runs."""
    count = {"equal": 0, "different": 0, "missing": 0, "left over": 0}
    for path in sorted(alone.rglob("predictions.npz")):
        twin = disturbed / path.relative_to(alone)
        if not twin.exists():
            count["missing"] += 1
            continue
        json.loads(twin.with_name("results.json").read_text())
        with np.load(path) as one, np.load(twin) as other:
            same = all(one[name].tobytes() == other[name].tobytes() for name in one.files)
        count["equal" if same else "different"] += 1
    count["left over"] = len([*disturbed.rglob("*.part"), *disturbed.rglob(".ray-*")])
    count["double"] = len(results(disturbed)) - len(results(alone))
    return count


def main() -> int:
    """Print the counts; 1 unless all results are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["CoOp", "CoCoOp"])
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    draw, wrong = random.Random(args.seed), 0

    def trial(output: str) -> Trial:
        return Trial(args.folder, output, args.methods, args.epochs, args.kills, draw)

    trial("alone").start("--jobs", "2").wait()
    for fault in args.faults:
        happened = FAULTS[fault](trial(fault))
        count = compared(args.folder / "alone", args.folder / fault)
        print(f"{fault}: {happened}: {count}", flush=True)
        wrong += sum(count.values()) - count["equal"] + (not count["equal"])
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
