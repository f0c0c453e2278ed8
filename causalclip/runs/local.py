"""The local engine: worker processes that stay alive from one run to the next."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from causalclip.runs.plan import PlanError, Run
from causalclip.runs.schedule import Outcome, Schedule, work
from causalclip.runs.stop import Stop
from causalclip.runs.worker import THREAD_VARIABLES, Show


@dataclass(frozen=True)
class Local:
    """How many processes there are and what each gets."""

    jobs: int = 1
    threads: int | None = 1
    """Of each process; None leaves it to the libraries: as many as there are cores."""
    gpus_per_run: float = 0
    """GPUs of each process, or its part of one; 0: every process sees all."""
    show: Show = "all"

    def check(self) -> None:
        """Raise for more than the machine has.

        Raises:
            PlanError: no jobs, or more GPUs than there are.
        """
        if self.jobs < 1 or (self.threads is not None and self.threads < 1):
            raise PlanError(f"--jobs and --threads must be positive, got {self.jobs, self.threads}")
        check_share(self.gpus_per_run)
        per_gpu = int(1 / self.gpus_per_run) if 0 < self.gpus_per_run < 1 else 1
        needed = -(-self.jobs // per_gpu) * max(1, int(self.gpus_per_run))
        if self.gpus_per_run and needed > len(gpus()):
            raise PlanError(
                f"{self.jobs} jobs with {self.gpus_per_run:g} GPUs each need {needed}, "
                f"there are {len(gpus())}"
            )

    def devices(self, number: int) -> str | None:
        """CUDA_VISIBLE_DEVICES of a process; None: as it is."""
        if not self.gpus_per_run:
            return None
        if self.gpus_per_run < 1:
            return gpus()[number // int(1 / self.gpus_per_run)]
        each = int(self.gpus_per_run)
        return ",".join(gpus()[number * each : (number + 1) * each])

    def environment(self, number: int) -> dict[str, str]:
        """The environment of a process."""
        found = {**os.environ, "PYTHONUNBUFFERED": "1"}  # lines as they come
        if self.threads is not None:
            found.update(dict.fromkeys(THREAD_VARIABLES, str(self.threads)))
        devices = self.devices(number)
        return found if devices is None else {**found, "CUDA_VISIBLE_DEVICES": devices}

    def __call__(self, runs: Sequence[Run], stop: Stop) -> Iterator[Outcome]:
        """Do the runs; one outcome each, as they end. After a stop, those at work end."""
        pool = Pool(self)
        try:
            yield from work(Schedule(runs), pool, stop)
        finally:
            pool.end()


def check_share(gpus_per_run: float) -> None:
    """Raise for GPUs that no run can have.

    Raises:
        PlanError: neither whole GPUs nor a part of one.
    """
    if not (0 <= gpus_per_run <= 1 or (gpus_per_run > 0 and gpus_per_run % 1 == 0)):
        said = "must be a whole number, or a part between 0 and 1"
        raise PlanError(f"--gpus-per-run {said}, got {gpus_per_run:g}")


def gpus() -> list[str]:
    """The GPUs that may be used, by number or name: CUDA_VISIBLE_DEVICES, else all there are."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


@dataclass
class Worker:
    """One process and what it is doing."""

    number: int
    process: subprocess.Popen
    connection: Connection
    run: Run | None = None
    since: float = field(default=0.0)

    def begin(self, run: Run) -> None:
        """Hand it a run."""
        self.run, self.since = run, time.monotonic()
        self.connection.send(list(run.arguments))

    def end(self, *, kill: bool = False) -> None:
        """End it; one that is idle ends by itself when the connection does."""
        self.connection.close()
        if kill:
            self.process.kill()
        self.process.wait()


class Pool:
    """The worker processes; one that died is replaced."""

    def __init__(self, settings: Local) -> None:
        self.settings = settings
        self.workers: list[Worker] = []

    def has_room(self) -> bool:
        """Whether it can take another run."""
        return len(self._busy()) < self.settings.jobs

    def begin(self, run: Run) -> None:
        """Give a free worker a run."""
        self._free_worker().begin(run)

    def is_idle(self) -> bool:
        """Whether no run is at work."""
        return not self._busy()

    def heard(self, schedule: Schedule) -> Iterator[Outcome]:
        """What has ended; waits a little for it."""
        busy = self._busy()
        heard = wait([worker.connection for worker in busy], timeout=0.5)
        for worker in busy:
            if worker.run and worker.connection in heard:
                yield self._answer(worker, worker.run, schedule)

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.run]

    def _free_worker(self) -> Worker:
        for worker in [w for w in self.workers if w.run is None]:
            if worker.process.poll() is None:
                return worker
            self.workers.remove(worker)  # it died while it had nothing to do
            worker.end()
        taken = {worker.number for worker in self.workers}
        number = next(n for n in range(self.settings.jobs) if n not in taken)
        worker = start_worker(number, self.settings)
        self.workers.append(worker)
        return worker

    def _answer(self, worker: Worker, run: Run, schedule: Schedule) -> Outcome:
        worker.run = None
        seconds = time.monotonic() - worker.since
        try:
            return schedule.ended(run, worker.connection.recv(), seconds)
        except (EOFError, ConnectionError):
            self.workers.remove(worker)
            worker.end()
            return schedule.died(run, _how(worker.process.returncode))

    def end(self) -> None:
        """End all, those at work too."""
        for worker in self.workers:
            worker.end(kill=worker.run is not None)


def _how(status: int) -> str:
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}: the traceback is in the log"


def start_worker(number: int, settings: Local) -> Worker:
    """A new process with a connection to it."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "causalclip.runs.worker", str(theirs.fileno()), settings.show]
    process = subprocess.Popen(
        command, pass_fds=[theirs.fileno()], env=settings.environment(number)
    )
    theirs.close()
    return Worker(number, process, Connection(ours.detach()))
