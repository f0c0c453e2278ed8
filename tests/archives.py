"""Tar and zip archives in memory."""

from __future__ import annotations

import io
import tarfile
import zipfile


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""):
    """Return a member of a tar archive and a stream of its content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, io.BytesIO(content)


def tar_of(*entries, mode="w:gz") -> bytes:
    """Return an archive of members made by `entry`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        for info, content in entries:
            archive.addfile(info, content)
    return buffer.getvalue()


def plain_tar(files: dict, mode="w:gz") -> bytes:
    """Return an archive of files, given as name -> content."""
    return tar_of(*(entry(name, content) for name, content in files.items()), mode=mode)


def zip_of(files: dict) -> bytes:
    """Return an archive of files, given as name -> content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
