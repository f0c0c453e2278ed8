"""The Ray engine: runs as core tasks on the machines of a cluster."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported

import ray
from ray.exceptions import RayError, RayTaskError

from causalclip.runs.errand import Answer, Errand, Parcels, do
from causalclip.runs.local import check_share
from causalclip.runs.lock import locked
from causalclip.runs.parcel import deliver, packed
from causalclip.runs.plan import PlanError, Run
from causalclip.runs.recipes import CONFIGS
from causalclip.runs.schedule import Outcome, Schedule, work
from causalclip.runs.state import finished, state_of
from causalclip.runs.stop import Stop
from causalclip.runs.worker import Show

OWN_CLUSTER = "local"
RETRIES = 3
"""Of a run whose process or machine died: machines may be lent, and be taken away again."""
ANSWER_WITHIN = 30.0
"""Seconds for an address to answer in."""
COUNT_EVERY = 2.0
"""Seconds between two looks at what machines there are."""
MARK = ".ray-"
"""How the name of a driver's file begins."""


@dataclass(frozen=True)
class Ray:
    """Which cluster there is, and what each run gets of it."""

    address: str = ""
    """HOST:PORT, or auto for the one on this machine; else $RAY_ADDRESS, else one of its own."""
    jobs: int | None = None
    """At most so many at a time; None for as many as there is room for."""
    threads: int | None = 1
    gpus_per_run: float = 0
    show: Show = "runs"

    @property
    def cpus(self) -> int:
        """CPUs of each run."""
        return self.threads or 1

    def check(self) -> None:
        """Connect to the cluster, or start one.

        Raises:
            PlanError: nobody answers at the address, or no machine has what a run needs.
        """
        for name, value in (("jobs", self.jobs), ("threads", self.threads)):
            if value is not None and value < 1:
                raise PlanError(f"--{name} must be positive, got {value}")
        check_share(self.gpus_per_run)
        if not ray.is_initialized():
            self._connect()
        if not self.room():
            most = {kind: max(node.get(kind, 0) for node in machines()) for kind in ("CPU", "GPU")}
            raise PlanError(
                f"a run needs {self.cpus} CPUs and {self.gpus_per_run:g} GPUs of one machine; the "
                f"cluster's have at most {most['CPU']:g} and {most['GPU']:g}"
            )

    def _connect(self) -> None:
        address = self.address or os.environ.get("RAY_ADDRESS", "") or OWN_CLUSTER
        own: dict[str, Any] = {}
        if address == OWN_CLUSTER:
            own = {"include_dashboard": False, "num_cpus": self.jobs and self.jobs * self.cpus}
        elif address != "auto":
            check_answers(address)
        seen = self.show != "runs"
        try:
            ray.init(address, log_to_driver=seen, logging_level=logging.WARNING, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise PlanError(f"no Ray cluster at {address}: {error}") from error

    def room(self) -> int:
        """How many runs the machines have room for at a time."""
        return sum(self._on(machine) for machine in machines())

    def _on(self, machine: dict[str, float]) -> int:
        by_cpu = int(machine.get("CPU", 0) // self.cpus)
        if not self.gpus_per_run:
            return by_cpu
        gpus = machine.get("GPU", 0)
        whole = self.gpus_per_run >= 1  # parts of a run's GPU lie on one and the same
        each = gpus // self.gpus_per_run if whole else gpus * (1 // self.gpus_per_run)
        return min(by_cpu, int(each))

    def __call__(self, runs: Sequence[Run], stop: Stop) -> Iterator[Outcome]:
        """Do the runs; one outcome each, as they end. After a stop, those at work end."""
        if not runs:
            return
        self.check()
        with marked([run.folder for run in runs]) as mark:
            tasks = Tasks(self, mark)
            try:
                yield from work(Schedule(runs), tasks, stop)
            finally:
                tasks.end()


def machines() -> list[dict[str, float]]:
    """The resources of each machine that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_answers(address: str) -> None:
    """Raise unless a Ray cluster answers: Ray's own attempt takes two minutes.

    Raises:
        PlanError: it is no HOST:PORT, nobody is there, or somebody else.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise PlanError(f"--address must be HOST:PORT or auto, got {address}")
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_WITHIN).close()
        subprocess.run(check, timeout=ANSWER_WITHIN, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise PlanError(f"no Ray cluster answers at {address}: {_silence(error)}") from error


def _silence(error: OSError | subprocess.SubprocessError) -> OSError | str:
    """Why nobody has answered."""
    if isinstance(error, OSError):
        return error
    if b"AuthToken" in (getattr(error, "stderr", None) or b""):
        return "it wants its token: RAY_AUTH_MODE=token, and its ~/.ray/auth_token here too"
    return "it is not Ray"


@contextmanager
def marked(folders: Sequence[Path]) -> Iterator[Path]:
    """A file above all folders, for as long as they are worked in: who sees it sees them."""
    above = Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
    above.mkdir(parents=True, exist_ok=True)
    for left in above.glob(f"{MARK}*"):
        _remove_if_left(left)
    with tempfile.NamedTemporaryFile("r+", dir=above, prefix=MARK) as file:
        locked(file.file)
        yield Path(file.name)


def _remove_if_left(mark: Path) -> None:
    """Remove the mark of a driver that was killed: nobody holds it any more."""
    with suppress(FileNotFoundError), open(mark, "r+", encoding="utf-8") as file:
        if locked(file):
            mark.unlink()


class Tasks:
    """The tasks at work."""

    def __init__(self, settings: Ray, mark: Path) -> None:
        self.settings, self.mark = settings, mark
        self.at_work: dict[ray.ObjectRef, Run] = {}
        # Once: each new remote function is sent to every process anew.
        needs = {"num_cpus": settings.cpus, "num_gpus": settings.gpus_per_run}
        self.task = ray.remote(**needs, max_retries=RETRIES)(do)
        self.apart = False
        """Whether a machine was met that does not see our folders: they are sent along since."""
        self._places, self._counted = 0, -COUNT_EVERY

    def has_room(self) -> bool:
        """Whether a machine has a place for another run."""
        if time.monotonic() - self._counted > COUNT_EVERY:
            self._places, self._counted = self.settings.room(), time.monotonic()
        places = max(1, self._places)  # one waits for a machine to come back
        return len(self.at_work) < min(places, self.settings.jobs or places)

    def begin(self, run: Run) -> None:
        """Hand a run to the cluster."""
        threads, show = self.settings.threads, self.settings.show
        errand = Errand(run, Path.cwd(), CONFIGS, self.mark, threads, show)
        parcels = _parcels(run) if self.apart else None
        self.at_work[self.task.remote(errand, parcels)] = run

    def is_idle(self) -> bool:
        """Whether nothing is at work."""
        return not self.at_work

    def heard(self, schedule: Schedule) -> Iterator[Outcome]:
        """What has ended; waits a little for it."""
        refs = list(self.at_work)
        ended, _ = ray.wait(refs, timeout=0.5)
        more, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in {*ended, *more}:
            run = self.at_work.pop(ref)
            try:
                answer = ray.get(ref)
            except RayError as error:
                yield schedule.ended(run, _why(error), 0.0)
                continue
            if answer.needs_parcels:
                self.apart = schedule.data_apart = True
                self.begin(run)
            else:
                yield schedule.ended(run, _home(run, answer), answer.seconds)

    def end(self) -> None:
        """End what is at work."""
        for ref in self.at_work:
            ray.cancel(ref, force=True)


def _parcels(run: Run) -> Parcels:
    return Parcels(packed(run.folder), packed(run.trained) if run.trained else b"")


def _home(run: Run, answer: Answer) -> str:
    """Bring home what was done elsewhere; why the run failed."""
    if answer.parcel is not None and not finished(state_of(run)):
        try:
            deliver(answer.parcel, run.folder)
        except (OSError, ValueError) as error:
            return f"its files could not be written: {error}"
    return answer.reason


def _why(error: RayError) -> str:
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    first = str(error).strip().partition("\n")[0]
    return f"its process or its machine died {RETRIES + 1} times: {first}"
