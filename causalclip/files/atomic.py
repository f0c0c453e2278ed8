"""Atomic writes: files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows; without locks, folders left by killed processes are not removed
    fcntl = None

FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def replacing(path: str | os.PathLike, *, keep_existing: bool = False) -> Iterator[Path]:
    """Yield the path of an empty file to write to, which then replaces `path`.

    Readers see the old file or the whole new one. On failure, the old file is kept. The file's mode
    follows the umask. With `keep_existing`, the first of several writers wins.

    Raises:
        OSError: the file cannot be written, as on a full disk; names it.
    """
    path = Path(path)
    with explained_full_disk(f"write {path}; the previous file is kept"), unfinished(path) as part:
        part.touch()
        mode = part.stat().st_mode
        yield part
        if part.stat().st_mode != mode:  # safetensors replaces it by a private file
            part.chmod(mode)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut could leave an empty file
        if keep_existing:
            _link(part, path)
        else:
            os.replace(part, path)


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Yield a path on the file system of `target` to build a file or a folder at.

    It is in a hidden folder next to `target`, which is locked, and removed when the block ends.
    First, the hidden folders that killed processes left for the same `target` are removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, target.name)
    folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with _create_locked(folder):
            yield folder / "content"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create_locked(folder: Path) -> IO[bytes]:
    """Create a folder and return its lock file, open and locked."""
    while True:
        folder.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # another process removed it before it was locked
            lock = open(folder / "lock", "ab")  # noqa: SIM115 (the caller closes it)
            if fcntl is not None:
                with suppress(OSError):  # some network file systems have no locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_lock_of(folder, lock):
                return lock
            lock.close()


def _is_lock_of(folder: Path, lock: IO[bytes]) -> bool:
    """Return whether an open lock file is still in its folder: a removed one locks nothing."""
    return os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / "lock"))


def remove_abandoned(folder: Path, name: str | None = None) -> list[Path]:
    """Remove and return what killed processes left in `folder` for `name`, by default any name."""
    pattern = "*" if name is None else glob.escape(name)
    return [path for path in folder.glob(f".{pattern}.*.part") if _remove_unlocked(path)]


def _remove_unlocked(part: Path) -> bool:
    if fcntl is None:
        return False
    try:
        with open(part / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_lock_of(part, lock):
                return False
            if (part / "content").exists():
                print(f"Removing {part}, left by a process that died")
            shutil.rmtree(part, ignore_errors=True)
    except OSError:  # its writer is running or has just finished, or locks are not supported
        return False
    return True


@contextmanager
def explained_full_disk(action: str) -> Iterator[None]:
    """Reword the error of a full disk, which names no file, as "No space left to <action>"."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(error.errno, f"No space left to {action}") from error


def reserve(path: Path) -> None:
    """Allocate the bytes of a sparse file: on a full disk, writing to its memory map would crash.

    Raises:
        OSError: the disk is full.
    """
    if allocate := getattr(os, "posix_fallocate", None):  # not on macOS
        with open(path, "rb+") as file:
            allocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _link(part: Path, path: Path) -> None:
    """Give `part` the name `path`, unless that exists."""
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:  # no hard links (FAT, some network shares): the last of two writers wins
        if not path.exists():
            os.replace(part, path)
