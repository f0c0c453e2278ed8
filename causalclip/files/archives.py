"""Unpacking archives of strangers: regular files and folders only, checked by us, whole or not.

Python's own `extractall` follows links that the archive itself has made (CVE-2025-4517 wrote
outside the target although `filter="data"` was given). Here nothing but plain bytes is taken from
an archive, into an empty folder of our own, and links, devices and modes never are.
"""

from __future__ import annotations

import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from causalclip.files.atomic import FULL
from causalclip.files.unfinished import unfinished

BLOCK = 1 << 20
PLAIN = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)
MOST_MEMBERS = 5_000_000  # ImageNet has 1.4 million files
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    LookupError,  # a zip's member without a name
    OverflowError,
    EOFError,
    NotImplementedError,  # a zip's unknown compression
    RuntimeError,  # a zip's password
)


@dataclass(frozen=True)
class Member:
    """A folder, or a file with its content."""

    name: str
    size: int
    """Bytes, as the archive says."""
    content: IO[bytes] | None = None
    """None for a folder."""


def unpack(archive: Path, folder: Path, *, most_bytes: int) -> None:
    """Unpack a .zip or .tar(.gz, .bz2, .xz) archive into `folder`, all of it or nothing.

    Args:
        archive: the file.
        folder: may hold other files already; those of the same name are replaced.
        most_bytes: what all files together may take.

    Raises:
        ValueError: a file that is no archive or is damaged; a member that is no plain file or
            folder, or whose name leaves the folder; more bytes than allowed. Nothing is unpacked.
        OSError: the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished(folder)
    part.mkdir()
    try:
        _write_all(archive, part, most_bytes)
        merge(part, folder)
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise OSError(
                error.errno, f"No space left to unpack {archive} into {folder}; it is kept"
            ) from error
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the archive's
            raise
        raise ValueError(
            f"{archive} is damaged, nothing unpacked ({error or type(error).__name__}); "
            "remove it and fetch it again"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_all(archive: Path, part: Path, most_bytes: int) -> None:
    taken = 0
    for number, member in enumerate(_members(archive)):
        path = part / inside(member.name, archive)
        taken += member.size
        if taken > most_bytes or number >= MOST_MEMBERS:
            raise ValueError(
                f"{archive} must hold at most {most_bytes / 1e9:.1f} GB in {MOST_MEMBERS:,} files, "
                f"it holds more; nothing unpacked"
            )
        try:
            _write(member, path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise ValueError(
                f"{archive} must name each file once, {member.name!r} is in another's place; "
                "nothing unpacked"
            ) from None


def _write(member: Member, path: Path) -> None:
    if member.content is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with member.content as source, open(path, "xb") as target:
        shutil.copyfileobj(source, target, BLOCK)


def inside(name: str, archive: Path | str) -> PurePosixPath:
    """A member's path below the folder that it goes to.

    Raises:
        ValueError: it leaves the folder; names the archive.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    drive = bool(path.parts) and ":" in path.parts[0]
    if path.is_absolute() or drive or ".." in path.parts or "\0" in name:
        raise ValueError(f"{archive} must stay in its folder, it holds {name!r}; nothing unpacked")
    return path


# The two kinds of archives


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield from _zip_members(file, archive)
        return
    try:
        file = tarfile.open(archive, tarinfo=_ShortHeader)  # noqa: SIM115 (closed below)
    except tarfile.TarError as error:
        said = str(error).splitlines()[-1]  # what each kind of compression says, one a line
        raise ValueError(f"{archive} must be a .zip or .tar archive ({said})") from error
    with file:
        yield from _tar_members(file, archive)
        _require_end(file)


def _zip_members(file: zipfile.ZipFile, archive: Path) -> Iterator[Member]:
    for info in file.infolist():
        kind = info.external_attr >> 16 & 0o170000  # of Unix; 0 where another system packed
        if info.is_dir():
            yield Member(info.filename, 0)
        elif kind in (0, 0o100000):
            yield Member(info.filename, info.file_size, file.open(info))
        else:
            raise _special(archive, info.filename)


def _tar_members(file: tarfile.TarFile, archive: Path) -> Iterator[Member]:
    for info in file:
        if info.isdir():
            yield Member(info.name, 0)
        elif info.isreg() and not info.issparse():
            yield Member(info.name, info.size, file.extractfile(info))
        else:
            raise _special(archive, info.name)
        file.members.clear()  # pyright: ignore[reportAttributeAccessIssue] (else all headers stay)


class _ShortHeader(tarfile.TarInfo):
    """A header whose additions, which tarfile reads into memory whole, are of sane length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _ShortHeader:
        info = super().frombuf(buf, encoding, errors)
        if info.type not in PLAIN and info.size > BLOCK:
            raise tarfile.ReadError(f"a header of {info.size:,} bytes")
        return info


def _special(archive: Path, name: str) -> ValueError:
    return ValueError(
        f"{archive} must hold files and folders only, got {name!r}, a link or a device; "
        "nothing unpacked"
    )


def _require_end(file: tarfile.TarFile) -> None:
    """An archive that is cut between two members looks whole, but for its end mark."""
    assert file.fileobj is not None
    file.fileobj.seek(file.offset)
    if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut short")
    while file.fileobj.read(BLOCK):  # to the checksum of the compression
        pass


# Moving


def merge(source: Path, target: Path) -> None:
    """Move the content of `source` into `target`, over files of the same name, and remove it."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in list(source.iterdir()):
        if entry.is_dir() and (target / entry.name).is_dir():
            merge(entry, target / entry.name)
        else:
            os.replace(entry, target / entry.name)
    source.rmdir()
