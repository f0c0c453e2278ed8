"""A process that does one run after the other and keeps what they all import.

    python -m causalclip.runs.worker FILE_DESCRIPTOR SHOW

It gets the arguments of `causalclip train` over a connection and answers with what went wrong, ""
for nothing. Between two runs nothing is left that could change the second: random state is seeded
by each run, environment, streams and arguments are put back.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Literal, TextIO, cast

from causalclip.runs.progress import BriefStream
from causalclip.runs.run_log import end_log

Show = Literal["all", "epochs", "runs"]
"""What is seen of a run: all it prints, one line an epoch, or its end alone."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Read when torch and NumPy are imported."""


def serve(connection: Connection, show: Show) -> None:
    """Do runs until the connection ends."""
    from causalclip.runs import train  # the imports that are kept

    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        connection.send(one(train.main, arguments, show))


def one(main: Callable[[Sequence[str]], int], arguments: Sequence[str], show: Show) -> str:
    """One run; why it failed, or ""."""
    import torch  # here: who only hands runs out needs neither

    from causalclip.report.results import reset_peak_memory

    errors = io.StringIO()
    reset_peak_memory()
    with _as_alone(arguments), _streams(show, errors):
        status = main(arguments)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if not status:
        return ""
    said = [line for line in errors.getvalue().splitlines() if "error: " in line]
    return said[-1].partition("error: ")[2] if said else f"exit status {status}"


@contextlib.contextmanager
def _as_alone(arguments: Sequence[str]) -> Iterator[None]:
    """Arguments, environment and folder as if the process had been started for this run."""
    argv, variables, folder = sys.argv, dict(os.environ), os.getcwd()
    sys.argv = ["causalclip train", *arguments]
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder)


@contextlib.contextmanager
def _streams(show: Show, errors: TextIO) -> Iterator[None]:
    """Streams of the run's own: Dassl's logger closes the stdout that it finds."""
    stdout, stderr = sys.stdout, sys.stderr
    console = os.fdopen(os.dup(stdout.fileno()), "w", buffering=1)
    shown = {"all": console, "epochs": BriefStream(console), "runs": io.StringIO()}[show]
    sys.stdout, sys.stderr = shown, _Both(stderr, errors) if show == "all" else errors
    try:
        yield
    finally:
        if isinstance(shown, BriefStream):
            shown.finish()
        end_log(sys.exc_info()[1])  # a mistake in the program ends the process
        sys.stdout, sys.stderr = stdout, stderr
        if not console.closed:
            console.close()


class _Both(io.TextIOBase):
    """Writes to two streams."""

    def __init__(self, first: TextIO, second: TextIO) -> None:
        self.streams = first, second

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def isatty(self) -> bool:
        return self.streams[0].isatty()


def end_with(parent: int) -> None:
    """End this process soon after its parent has: nobody waits for its runs any more."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
    end_with(os.getppid())
    serve(Connection(int(sys.argv[1])), cast(Show, sys.argv[2]))
