"""Files that appear whole or not at all, and that everybody may read whom the umask lets."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike, *, keep_existing: bool = False) -> Iterator[Path]:
    """Give the path of an empty neighbour to write to, which then takes the place of `path`.

    Readers see the old file or the whole new one. A failure leaves the old one, and no neighbour.
    With `keep_existing` the first of several writers wins and what the others wrote is dropped.
    (minidassl has a smaller one of its own: it is another distribution and cannot import this.)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
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
    finally:
        part.unlink(missing_ok=True)


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
