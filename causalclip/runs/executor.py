"""Processes that perform tasks: a pool on this machine or a Ray cluster, with one interface."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from causalclip.errors import UserError

THREAD_VARIABLES: tuple[str, ...] = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that torch and NumPy read when they are imported."""
GRACE = 60.0
"""Seconds that a process has after SIGTERM to save its training; then it is killed."""
CONNECT_SECONDS = 30.0
ATTEMPTS = 3
"""Attempts at a task whose process dies; a task that raises an error is not repeated."""
KeyT = TypeVar("KeyT")


Task = tuple[KeyT, Callable[..., Any], tuple]
"""A key chosen by the caller, a function, and its arguments."""


def in_parallel(executor: Executor, tasks: Iterable[Task[KeyT]]) -> Iterator[KeyT]:
    """Perform tasks in parallel; yield the key of each task when it has ended.

    Raises:
        Exception: what a task raises, or the executor's error if the process of a task died
            `ATTEMPTS` times.
    """
    waiting, at_work = iter(tasks), dict[Future, Task[KeyT]]()
    deaths: Counter[int] = Counter()
    while True:
        while len(at_work) < executor.places() and (task := next(waiting, None)):
            at_work[executor.submit(task[1], *task[2])] = task
        if not at_work:
            return
        for future in wait(at_work, return_when=FIRST_COMPLETED).done:
            task = at_work.pop(future)
            try:
                future.result()
            except executor.died:
                deaths[id(task)] += 1
                if deaths[id(task)] == ATTEMPTS:
                    raise
                waiting = chain([task], waiting)
            else:
                yield task[0]


def executor_of(args: argparse.Namespace) -> Executor:
    """Return the executor for the flags of `flags.executor_flags`; it is not started yet.

    Raises:
        UserError: --engine ray without Ray installed, or --address without --engine ray.
    """
    if args.engine == "local":
        if args.address:
            raise UserError(f"--address {args.address} is for --engine ray")
        return LocalPool(1 if args.jobs is None else args.jobs, args.threads, args.gpus_per_run)
    try:
        return RayTasks(args.address, args.jobs, args.threads, args.gpus_per_run)
    except ImportError as error:
        raise UserError(
            f"--engine ray needs Ray ({error}): pip install 'causalclip[ray]'"
        ) from error


# This machine


@dataclass
class LocalPool:
    """Processes on this machine; each performs one task after another."""

    jobs: int = 1
    threads: int | None = 1
    """Threads of each process; None: the default of the libraries, one for each core."""
    gpus_per_run: float = 0
    """GPUs of each process, or a fraction of one; 0: every process sees all GPUs."""
    _processes: list[_Process] = field(default_factory=list, init=False)

    died = BrokenExecutor

    def check(self) -> None:
        """Raise if this machine cannot provide what is asked for.

        Raises:
            UserError: wrong numbers, or more GPUs than the machine has.
        """
        check_shares(self.jobs, self.threads, self.gpus_per_run)
        per_gpu = int(1 / self.gpus_per_run) if 0 < self.gpus_per_run < 1 else 1
        needed = -(-self.jobs // per_gpu) * max(1, int(self.gpus_per_run))
        if self.gpus_per_run and needed > len(gpus()):
            raise UserError(
                f"{self.jobs} jobs with {self.gpus_per_run:g} GPUs each need {needed}, "
                f"there are {len(gpus())}"
            )

    def places(self) -> int:
        """Return the number of processes."""
        return self.jobs

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Start a task in an idle process; fewer than `places` tasks must be running."""
        process = next((p for p in self._processes if p.task is None or p.task.done()), None)
        if process is None:
            process = _Process(self.environment(len(self._processes)))
            self._processes.append(process)
        return process.submit(function, *arguments)

    def environment(self, number: int) -> dict[str, str]:
        """Return the environment variables of a process."""
        threads = {} if self.threads is None else dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        if not self.gpus_per_run:
            return threads
        if self.gpus_per_run < 1:
            seen = gpus()[number // int(1 / self.gpus_per_run)]
        else:
            each = int(self.gpus_per_run)
            seen = ",".join(gpus()[number * each : (number + 1) * each])
        return {**threads, "CUDA_VISIBLE_DEVICES": seen}

    def close(self) -> None:
        """End the processes; running trainings are saved first."""
        at_work = {p.task: p for p in self._processes if p.task and not p.task.done()}
        for process in at_work.values():
            process.signal(signal.SIGTERM)
        for task in wait(at_work, timeout=GRACE).not_done:
            at_work[task].signal(signal.SIGKILL)
        for process in self._processes:
            process.pool.shutdown()
        self._processes.clear()


class _Process:
    """A pool of one process, replaced when it dies: a larger pool would lose all of its tasks."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.task: Future | None = None
        self._start()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        arguments = (self.environment, multiprocessing.get_start_method())
        self.pool = ProcessPoolExecutor(1, spawn, _begin_process, arguments)
        # Only the driver handles Ctrl-C: a new process inherits the blocked signal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.pid = self.pool.submit(os.getpid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        try:
            self.task = self.pool.submit(function, *arguments)
        except BrokenExecutor:
            self._start()
            self.task = self.pool.submit(function, *arguments)
        return self.task

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process unless it has ended."""
        try:
            os.kill(self.pid.result(), number)
        except (BrokenExecutor, ProcessLookupError):
            return


def _begin_process(environment: dict[str, str], start_method: str) -> None:
    os.environ.update(environment)
    # Start data loaders' processes as the driver would: the default here is to spawn them.
    multiprocessing.set_start_method(start_method, force=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """When the parent process has died, save the training and end this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by multiprocessing"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def check_shares(jobs: int | None, threads: int | None, gpus_per_run: float) -> None:
    """Raise for wrong numbers of jobs, threads or GPUs.

    Raises:
        UserError: jobs or threads below 1, or neither whole GPUs nor a fraction of one.
    """
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be positive, got {value}")
    if not (0 <= gpus_per_run <= 1 or (gpus_per_run > 0 and gpus_per_run % 1 == 0)):
        raise UserError(
            "--gpus-per-run must be a whole number, or a part between 0 and 1, "
            f"got {gpus_per_run:g}"
        )


def gpus() -> list[str]:
    """Return the GPUs to use: those in CUDA_VISIBLE_DEVICES; if it is not set, all GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)


# Ray


class RayTasks:
    """Tasks on a Ray cluster, whose machines must all see the current folder, data and output.

    Args:
        address: HOST:PORT, or auto for the cluster of this machine; empty: $RAY_ADDRESS, or if it
            is not set, a new cluster on this machine.
        jobs: most tasks at a time; None: as many as the cluster has room for.
        threads: threads of each task, and the CPUs that it needs (None: 1).
        gpus_per_run: GPUs of each task, or a fraction of one.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(
        self,
        address: str = "",
        jobs: int | None = None,
        threads: int | None = 1,
        gpus_per_run: float = 0,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
        self.address = address or os.environ.get("RAY_ADDRESS", "") or "local"
        if self.address == "local":  # only a client with the token may run programs
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        import ray
        from ray.exceptions import RayError

        self.ray, self.died = ray, RayError
        self.jobs, self.threads, self.gpus_per_run = jobs, threads, gpus_per_run
        self.cpus = threads or 1
        self.refs: list[Any] = []

    def check(self) -> None:
        """Connect to the cluster, or start one.

        Raises:
            UserError: nothing answers at the address, or no machine has what a run needs.
        """
        check_shares(self.jobs, self.threads, self.gpus_per_run)
        if not self.ray.is_initialized():
            self._connect()
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(
            m.get("CPU", 0) >= self.cpus and m.get("GPU", 0) >= self.gpus_per_run for m in machines
        ):
            most = {kind: max(m.get(kind, 0) for m in machines) for kind in ("CPU", "GPU")}
            raise UserError(
                f"a run needs {self.cpus} CPUs and {self.gpus_per_run:g} GPUs of one machine; the "
                f"cluster's have at most {most['CPU']:g} and {most['GPU']:g}"
            )

    def _connect(self) -> None:
        own: dict[str, Any] = {}
        if self.address == "local":
            own = {"include_dashboard": False, "num_cpus": self.jobs and self.jobs * self.cpus}
        elif self.address != "auto":
            check_answers(self.address)
        try:
            self.ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError, self.died) as error:
            raise UserError(f"no Ray cluster at {self.address}: {error}") from error

    def places(self) -> int:
        """Return how many tasks to submit at a time: `jobs`, or fewer if the cluster is smaller."""
        there = self.ray.cluster_resources()
        room = there.get("CPU", 0) // self.cpus
        if self.gpus_per_run:
            room = min(room, there.get("GPU", 0) // self.gpus_per_run)
        return min(self.jobs or max(1, int(room)), max(1, int(room)))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """Start a task on a machine that has the CPUs and GPUs for it."""
        # max_retries is 0: the caller repeats a task whose process died, so Ray must not.
        needs = {"num_cpus": self.cpus, "num_gpus": self.gpus_per_run, "max_retries": 0}
        environment = LocalPool(threads=self.threads).environment(0)
        task = self.ray.remote(**needs)(_on_machine)
        ref = task.remote(environment, function, *arguments)
        self.refs.append(ref)
        return ref.future()

    def close(self) -> None:
        """Cancel all tasks."""
        for ref in self.refs:
            self.ray.cancel(ref, force=True)


def _on_machine(environment: dict[str, str], function: Callable[..., Any], *arguments: Any) -> Any:
    os.environ.update(environment)
    return function(*arguments)


def check_answers(address: str) -> None:
    """Raise if nothing answers at an address; Ray itself would try for two minutes.

    Raises:
        UserError: it is not HOST:PORT, or nothing answers.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address must be HOST:PORT or auto, got {address}")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}") from error


Executor: TypeAlias = LocalPool | RayTasks
