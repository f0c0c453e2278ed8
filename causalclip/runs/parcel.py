"""A run's folder as bytes, for a machine that does not see it; and back into a folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from causalclip.files.archives import inside
from causalclip.files.atomic import replacing
from causalclip.report.results import RESULTS_FILE
from causalclip.runs.lock import LOCK_FILE, holding


def packed(folder: Path) -> bytes:
    """The files of a folder as an uncompressed tar, but its lock; b"" where there is none."""
    if not folder.is_dir():
        return b""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != LOCK_FILE:
                tar.add(path, str(path.relative_to(folder)))
    return content.getvalue()


def unpack(parcel: bytes, folder: Path) -> None:
    """Write what was packed: each file whole, the result last.

    Raises:
        ValueError: a name that leaves the folder, before anything is written; or no file.
    """
    if not parcel:
        return
    with tarfile.open(fileobj=io.BytesIO(parcel)) as tar:
        # Not tarfile's own filter, which Python 3.11 has from its fourth release on.
        members = {inside(member.name, "a run's parcel"): member for member in tar}
        for path, member in sorted(members.items(), key=lambda item: item[0].name == RESULTS_FILE):
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise ValueError(f"a run's parcel must hold files alone, {path} is none")
            with replacing(folder / path) as part:
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
