"""One process at a folder: the others are told who has it; a holder that died has it no longer."""

from __future__ import annotations

import datetime
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LOCK_FILE = "run.lock"
HELD = {errno.EACCES, errno.EAGAIN}


class Busy(ValueError):  # noqa: N818 (what it says of the folder)
    """Another process has the folder; the message says which, where and since when."""


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold a folder; yields whether its last holder died with it.

    The lock is the system's own (POSIX, on network shares too), so it ends with its process,
    however that ends; the loading processes of a run do not inherit it.

    Raises:
        Busy: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    with open(path, "a+", encoding="utf-8", errors="replace") as file:
        if not locked(file):
            raise Busy(f"{folder} is at work: {_holder(file)}")
        file.seek(0)
        died = bool(file.read())
        _sign(file)
        try:
            yield died
        finally:  # what ends by an error that it says has not died
            file.truncate(0)  # the file stays, whoever waits may have it open


def _sign(file: IO[str]) -> None:
    file.truncate(0)
    try:
        os.write(file.fileno(), json.dumps(_me()).encode())  # unbuffered: closing writes nothing
    except OSError as error:  # which does not name the file
        raise OSError(error.errno, f"{error.strerror}, to write {file.name}") from error


def holder_of(folder: Path) -> str:
    """Which other process holds a folder, where and since when; "" for none."""
    path = folder / LOCK_FILE
    if not path.is_file():
        return ""
    with open(path, "r+", encoding="utf-8", errors="replace") as file:
        return "" if locked(file) else _holder(file)


def locked(file: IO[str]) -> bool:
    """Whether the lock is ours now; another process has it where not."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            raise
        return False
    return True


def _me() -> dict[str, str | int]:
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": now}


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        said = json.load(file)
        return f"process {said['pid']} on {said['host']} since {said['since']}"
    except (ValueError, TypeError, KeyError):  # it is just being written, or damaged
        return "another process"
