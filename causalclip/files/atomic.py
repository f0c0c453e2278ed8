"""Files that appear whole or not at all, and that everybody may read whom the umask lets."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from causalclip.files.unfinished import unfinished

FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def replacing(path: str | os.PathLike, *, keep_existing: bool = False) -> Iterator[Path]:
    """Give the path of an empty neighbour to write to, which then takes the place of `path`.

    Readers see the old file or the whole new one. A failure leaves the old one, and no neighbour;
    what a kill has left is removed by the next writer.

    With `keep_existing` the first of several writers wins and what the others wrote is dropped.
    (minidassl has a smaller one of its own: it is another distribution and cannot import this.)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished(path)
    mode = _create(part)
    try:
        yield part
        if part.stat().st_mode & 0o777 != mode:  # safetensors puts a private file in its place
            os.chmod(part, mode)
        _sync(part)
        if keep_existing:
            _link(part, path)
        else:
            os.replace(part, path)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            error.errno, f"No space left to write {path}; what stood there before is whole"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def reserve(path: Path) -> None:
    """Have the disk set aside every byte of a file that is as long as it will be, but sparse.

    Raises:
        OSError: the disk is full; without this a write into a mapping of the file ends the process.
    """
    if allocate := getattr(os, "posix_fallocate", None):  # not on macOS
        with open(path, "rb+") as file:
            allocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _create(part: Path) -> int:
    """Create an empty file as `open` would, and return its mode: the umask's choice."""
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)


def _sync(part: Path) -> None:
    """Wait until the bytes are on the disk: else a power cut could leave an empty file."""
    with open(part, "rb+") as file:
        os.fsync(file.fileno())


def _link(part: Path, path: Path) -> None:
    try:
        os.link(part, path)  # unlike replace, fails if another writer was first
    except FileExistsError:
        return
    except OSError as error:
        # A file system without hard links (FAT, some network shares): two writers at once may then
        # both write, one whole file after the other. Whether we may write here was clear before.
        if error.errno not in (errno.EPERM, errno.ENOTSUP):
            raise
        if not path.exists():
            os.replace(part, path)
