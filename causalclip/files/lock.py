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
"""Next to the lock: the process that holds it. A process that dies leaves it."""
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class Busy(ValueError):  # noqa: N818 (a state of the folder)
    """Another process holds the folder; the message says which, where and since when."""


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Lock a folder; yield whether its last holder died. A file system without locks is warned of.

    The system ends the lock with its process, however that ends.

    Raises:
        Busy: another process holds the lock.
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
    """Return who holds a locked folder, as it says itself; the lock is not touched."""
    try:
        holder = json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, TypeError, KeyError):  # being written, or damaged
        return "another process"
