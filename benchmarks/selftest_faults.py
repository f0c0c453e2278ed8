"""Faults for writers: a kill at each file operation, four writers at once, a full disk.

What `selftest.py` counts of them: whether readers see the old file or the whole new one, whether
the next writer leaves nothing behind, and whether what failed was said in words.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from selftest_writers import Writer

from causalclip.runs.lock import Busy, holding

OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.chmod"}
OPERATIONS |= {"os.truncate"}
PATIENCE = 60.0  # seconds
LAST = 9  # the version that a next writer writes


# Children


def in_child(work: Callable[[], str]) -> tuple[str, int]:
    """What `work` says in a process of its own, and that process's status."""
    (said,), (status,) = all_in_children([work])
    return said, status


def all_in_children(works: list[Callable[[], str]]) -> tuple[list[str], list[int]]:
    """The same of several at once; what does not end is killed, and "slow"."""
    running = [_fork(work) for work in works]
    said, statuses, end = [], [], time.monotonic() + PATIENCE
    for process, pipe in running:
        while not (found := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.002)
        with os.fdopen(pipe) as file:
            said.append("slow" if time.monotonic() > end else file.read())
        statuses.append(os.waitstatus_to_exitcode(found[1]))
    return said, statuses


def _fork(work: Callable[[], str]) -> tuple[int, int]:
    pipe, answer = os.pipe()
    process = os.fork()
    if process:
        os.close(answer)
        return process, pipe
    torch.set_num_threads(1)  # the threads of the parent are not here
    try:
        said = work()
    except Exception as error:  # noqa: BLE001 (what is counted)
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"traceback: {type(error).__name__}: {error} ({where.name}:{where.lineno})"
    os.write(answer, said.encode()[:4000])
    os._exit(0)


# Kills at each file operation


def killed_at(writer: Writer, folder: Path, operation: int) -> tuple[str, bool]:
    """What a kill before the n-th file operation leaves, and whether the writer came that far."""
    writer.write(folder, 1)

    def work() -> str:
        _die_at(operation)
        writer.write(folder, 2)
        return "done"

    said, status = in_child(work)
    if said.startswith(("traceback", "slow")):
        return said, False
    return _state(writer, folder, {1: "old", 2: "new"}), status == -signal.SIGKILL


def _die_at(operation: int) -> None:
    """Kill this process before its n-th file operation from now."""
    left = operation

    def count(event: str, _arguments: tuple) -> None:
        nonlocal left
        left -= event in OPERATIONS
        if left == 0:
            left = -1  # to kill is an event as well
            os.kill(os.getpid(), signal.SIGKILL)

    sync = os.fsync

    def fsync(handle: int) -> None:
        count("open", ())
        sync(handle)

    os.fsync = fsync
    sys.addaudithook(count)


def _state(writer: Writer, folder: Path, names: dict[int, str]) -> str:
    """Which version is there; the next writer works and leaves nothing behind."""
    try:
        found = names.get(writer.read(folder), "neither the old file nor the new one")
        writer.write(folder, LAST)
        if writer.read(folder) != LAST:
            return "the next writer is not heard"
    except Exception as error:  # noqa: BLE001 (what is counted)
        return f"traceback: {type(error).__name__}: {error}"
    return "left something" if left_over(folder) else found


def left_over(folder: Path) -> list[Path]:
    """What no finished writer leaves."""
    return [path for path in folder.rglob("*") if ".part" in path.name]


# Several at one folder


def four_at_once(writer: Writer, folder: Path, draw: random.Random) -> str:
    """Four processes write, and read what is there, in one folder."""
    versions = {1: "fine", 2: "fine", 3: "fine", 4: "fine"}
    orders = [[draw.choice(list(versions)) for _ in range(6)] for _ in versions]
    writer.write(folder, 1)

    def work(order: list[int]) -> str:
        for number in order:
            with _held(folder) if writer.alone else contextlib.nullcontext():
                writer.write(folder, number)
                if writer.read(folder) not in versions:
                    return "neither of the files"
        return "fine"

    said, statuses = all_in_children([functools.partial(work, order) for order in orders])
    if wrong := next((text for text in said if text != "fine"), ""):
        return wrong
    return _state(writer, folder, versions) if not any(statuses) else f"statuses {statuses}"


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder as soon as the others let it go."""
    while True:
        with contextlib.suppress(Busy), holding(folder):
            yield
            return
        time.sleep(0.002)


def four_at_a_lock(folder: Path) -> str:
    """Four processes want one folder: one has it, the others are told who."""

    def work() -> str:
        told = 0
        for _ in range(20):
            try:
                with holding(folder):
                    mine = os.open(
                        folder / "inside", os.O_CREAT | os.O_EXCL
                    )  # else FileExistsError
                    time.sleep(0.002)
                    os.close(mine)
                    os.unlink(folder / "inside")
            except Busy as busy:
                told += "process" in str(busy)
        return "fine"

    said, _ = all_in_children([work] * 4)
    return next((text for text in said if text != "fine"), "fine")


# Full disks


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int = 256) -> Iterator[Path]:
    """A disk of its own below a folder.

    Raises:
        PermissionError: only root may mount one.
    """
    place = folder / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        raise PermissionError(errno.EPERM, "only root may mount a small disk")
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(place)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def on_full_disk(writer: Writer, folder: Path, draw: random.Random) -> str:
    """A writer with too little room, perhaps none: what it says, and what stands there then."""
    with small_disk(folder) as disk:
        writer.write(disk, 1)
        filler = disk / "filler"
        fill(filler, leave=draw.randrange(0, 60_000))
        said, status = in_child(lambda: _try(writer, disk))
        filler.unlink()
        if said.startswith(("traceback", "slow", "unnamed")) or status:
            return said or f"status {status}"
        state = _state(writer, disk, {1: "old", 2: "new"})
        return f"{said}, {state}"


def _try(writer: Writer, disk: Path) -> str:
    try:
        writer.write(disk, 2)
    except OSError as error:
        named = "No space left" in str(error) and str(disk) in str(error)
        return "said" if named else f"unnamed: {error}"
    return "room"


def fill(path: Path, *, leave: int) -> None:
    """Write until a disk is full but for some bytes."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1024)):
            pass
    os.truncate(path, max(0, path.stat().st_size - leave))
