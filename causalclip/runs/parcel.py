"""A run's folder as bytes, for a machine that does not see it; and back into a folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from causalclip.files.atomic import replacing
from causalclip.report.results import RESULTS_FILE
from causalclip.runs.lock import LOCK_FILE, holding


def packed(folder: Path) -> bytes:
    """The files of a folder as an uncompressed tar, but its lock; b"" where there is none."""
    if not folder.is_dir():
        return b""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != LOCK_FILE:
                tar.add(path, str(path.relative_to(folder)))
    return content.getvalue()


def unpack(parcel: bytes, folder: Path) -> None:
    """Write what was packed: each file whole, the result last."""
    if not parcel:
        return
    with tarfile.open(fileobj=io.BytesIO(parcel)) as tar:
        for member in sorted(tar.getmembers(), key=lambda file: file.name == RESULTS_FILE):
            inside = tarfile.data_filter(member, str(folder))  # raises for ../ and the like
            content = tar.extractfile(inside)
            assert content is not None  # files alone were packed
            with replacing(folder / inside.name) as part:
                part.write_bytes(content.read())


def deliver(parcel: bytes, folder: Path) -> None:
    """Bring a run home, in place of what its folder held.

    Raises:
        Busy: another process is at work in the folder.
        OSError: the folder cannot be written.
    """
    with holding(folder):
        (folder / RESULTS_FILE).unlink(missing_ok=True)  # until all that belongs to it is there
        unpack(parcel, folder)
