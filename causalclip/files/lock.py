"""Locks on folders, by the library filelock: one process works in a folder at a time."""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_FILE = "run.lock"
HOLDER_FILE = "run.lock.json"
"""File next to the lock that describes the locking process; stays if that process is killed."""
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class Busy(ValueError):  # noqa: N818 (not a failure)
    """Another process has locked the folder; the message states its id, its host and the time."""


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Lock a folder; yield whether the process that locked it before died without unlocking it.

    The operating system releases the lock when this process ends, also if it is killed. On a file
    system without locks, a warning is issued.

    Raises:
        Busy: another process has locked the folder.
        OSError: the folder cannot be written; names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK_FILE, timeout=0), folder / HOLDER_FILE
    try:
        lock.acquire()
    except Timeout:
        raise Busy(f"{folder} is at work: {holder_of(folder)}") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        warnings.warn(f"{folder} has no locks ({error}): start no second run in it", stacklevel=3)
    try:
        died = holder.exists()
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        try:
            holder.write_text(json.dumps(me), encoding="utf-8")
        except OSError as error:  # a full disk, whose error names no file
            raise OSError(error.errno, f"{error.strerror}, to write {holder}") from error
        try:
            yield died
        finally:
            holder.unlink(missing_ok=True)
    finally:
        lock.release()


def holder_of(folder: Path) -> str:
    """Return which process has locked a folder, from the file next to the lock."""
    try:
        holder = json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # being written, or damaged
        return "another process"
