"""How close the engines come to the ideal on runs that only sleep.

    python benchmarks/engine_overhead.py [--engine local] [--runs 1000] [--jobs 32] [--seconds 1]
    python benchmarks/engine_overhead.py --engine ray

The workers are real processes that do nothing but sleep, so that what is left is the engine:
starting them, handing out runs, hearing of their ends; for Ray, on a cluster of three nodes on this
machine that have the CPUs together, connecting included. Printed: the time as a multiple of the
ideal.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from ray_nodes import nodes

from causalclip.runs import local
from causalclip.runs.local import Local, Worker
from causalclip.runs.perform import Engine
from causalclip.runs.plan import Run
from causalclip.runs.stop import Stop

SLEEPER = """
import sys, time
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
while True:
    try:
        connection.recv()
    except EOFError:
        break
    time.sleep(float(sys.argv[2]))
    connection.send("")
"""


@contextmanager
def sleeping_locally(jobs: int, seconds: float) -> Iterator[Engine]:
    """The local engine, with workers that sleep."""

    def start(number: int, _settings: Local) -> Worker:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-S", "-c", SLEEPER, str(theirs.fileno()), str(seconds)]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        return Worker(number, process, Connection(ours.detach()))

    local.start_worker = start
    yield Local(jobs=jobs)


@contextmanager
def sleeping_on_ray(jobs: int, seconds: float) -> Iterator[Engine]:
    """The Ray engine on three nodes, with tasks that sleep."""
    from causalclip.runs import ray_engine

    def sleep(*_sent: object) -> object:
        from causalclip.runs.errand import Answer

        time.sleep(seconds)
        return Answer(seconds=seconds)

    setattr(ray_engine, "do", sleep)  # noqa: B010 (in place of a run)
    third = jobs // 3
    with nodes([jobs - 2 * third, third, third]) as cluster:
        yield ray_engine.Ray(str(cluster.address))
        ray_engine.ray.shutdown()


ENGINES = {"local": sleeping_locally, "ray": sleeping_on_ray}


def main() -> int:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, default="local")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ENGINES[args.engine](args.jobs, args.seconds) as engine,
    ):
        runs = [Run("fewshot", "train", Path(folder, str(n)), ()) for n in range(args.runs)]
        begin = time.perf_counter()
        outcomes = list(engine(runs, Stop()))
        taken = time.perf_counter() - begin
    ideal = args.seconds * -(-args.runs // args.jobs)
    good = sum(outcome.good for outcome in outcomes)
    print(f"{good} runs, {args.jobs} at a time: {taken:.1f} s, {taken / ideal:.3f} of the ideal")
    return int(good != args.runs)


if __name__ == "__main__":
    sys.exit(main())
