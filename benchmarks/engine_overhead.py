"""How close the local engine comes to the ideal on runs that only sleep.

    python benchmarks/engine_overhead.py [--runs 1000] [--jobs 32] [--seconds 1]

The workers are real processes that do nothing but sleep, so that what is left is the engine:
starting them, handing out runs, hearing of their ends. Printed: the time as a multiple of the
ideal.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from causalclip.runs import local
from causalclip.runs.local import Local, Worker
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


def main() -> int:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()

    def start(number: int, _settings: Local) -> Worker:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-S", "-c", SLEEPER, str(theirs.fileno()), str(args.seconds)]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        return Worker(number, process, Connection(ours.detach()))

    local.start_worker = start
    with tempfile.TemporaryDirectory() as folder:
        runs = [Run("fewshot", "train", Path(folder, str(n)), ()) for n in range(args.runs)]
        begin = time.perf_counter()
        outcomes = list(Local(jobs=args.jobs)(runs, Stop()))
        taken = time.perf_counter() - begin
    ideal = args.seconds * -(-args.runs // args.jobs)
    good = sum(outcome.good for outcome in outcomes)
    print(f"{good} runs, {args.jobs} at a time: {taken:.1f} s, {taken / ideal:.3f} of the ideal")
    return int(good != args.runs)


if __name__ == "__main__":
    sys.exit(main())
