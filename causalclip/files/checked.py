"""Files that end in a checksum of what stands before it, so that damage is noticed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20
LENGTH = hashlib.sha256().digest_size  # bytes


def seal(path: Path) -> None:
    """Append the sha256 of a file's content; a reader of the content need not know of it."""
    with open(path, "rb+") as file:
        digest = _digest_of_next(file, os.fstat(file.fileno()).st_size)
        file.seek(0, os.SEEK_END)
        file.write(digest)


def is_whole(path: Path) -> bool:
    """Whether a sealed file holds what was sealed: nothing cut, exchanged or zeroed."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size - LENGTH
        return size >= 0 and _digest_of_next(file, size) == file.read()


def _digest_of_next(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, BLOCK))):
        digest.update(block)
        size -= len(block)
    return digest.digest()
