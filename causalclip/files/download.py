"""Download files and compare them with published digests; unpack untrusted archives."""

from __future__ import annotations

import http.client
import lzma
import os
import shutil
import struct
import tarfile
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError

from tqdm.auto import tqdm

from causalclip.files.atomic import FULL, explained_full_disk, replacing, unfinished
from causalclip.files.digests import CHUNK_BYTES, Known

_ATTEMPTS = 5
_TIMEOUT = 30  # seconds
MOST_BYTES = 50 * 10**9  # limit for a download without a published size


def fetch(url: str, folder: str | os.PathLike, *, known: Known | None = None) -> Path:
    """Return the local copy of `url` in `folder`; download it if it is missing or damaged.

    A broken download is resumed. Several processes may fetch the same file.

    Raises:
        ConnectionError: the file cannot be reached; says how to get it by hand.
        ValueError: more or other bytes arrived than were published.
    """
    known = known or Known()
    target = Path(folder) / url.rsplit("/", 1)[-1]
    if target.is_file():
        if not (difference := known.difference(target)):
            return target
        warnings.warn(f"{target} is damaged ({difference}); fetching it again", stacklevel=2)
    with replacing(target) as part:
        _download(url, part, known, target)
        verify_download(known, part, url)
    return target


def verify_download(known: Known, part: Path, url: str) -> None:
    """Delete the file `part`, downloaded from `url`, if it differs from what was published.

    Raises:
        ValueError: the file differs; describes the difference.
    """
    if difference := known.difference(part):
        part.unlink()
        raise ValueError(f"{url} has {difference}; the copy was deleted, try again")


def check_size(size: int, known: Known, url: str) -> None:
    """Raise ValueError for more bytes than the published size or, without one, `MOST_BYTES`."""
    if size > (known.size or MOST_BYTES):
        limit = f"{known.size:,} expected" if known.size else f"{MOST_BYTES:,} allowed"
        raise ValueError(f"{url} has more bytes than the {limit}; nothing is kept")


def _download(url: str, part: Path, known: Known, target: Path) -> None:
    reason: object = "the connection broke"
    for _ in range(_ATTEMPTS):
        try:
            if _append(url, part, known, target.name):
                return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            if isinstance(error, HTTPError) and error.code == 416:
                os.truncate(part, 0)  # the file on the server is not the one in `part`
            reason = error
    raise ConnectionError(
        f"cannot download {target.name} in {_ATTEMPTS} attempts: {reason}. Fetch {url} on a "
        f"machine with a connection and put the file into the folder {target.parent}"
    )


def _append(url: str, part: Path, known: Known, label: str) -> bool:
    """Download the rest of the file to `part`; return whether it is complete."""
    size = part.stat().st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={size}-"} if size else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, open(part, "ab") as file:
        if response.status != http.client.PARTIAL_CONTENT:
            file.truncate(size := 0)  # the server sends the whole file again
        length = response.headers.get("Content-Length")
        total = None if length is None else size + int(length)
        with tqdm(
            initial=size, total=total, unit="B", unit_scale=True, desc=label, disable=None
        ) as bar:
            while block := response.read(CHUNK_BYTES):
                size += len(block)
                check_size(max(size, total or 0), known, url)
                file.write(block)
                bar.update(len(block))
    return total is None or size >= total


# Archives

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_DAMAGE += (LookupError, OverflowError, EOFError, RuntimeError)  # errors of zipfile


def unpack(archive: Path, folder: Path, *, most_bytes: int) -> None:
    """Unpack a .zip or .tar(.gz, .bz2, .xz) archive into `folder`, all of it or nothing.

    Only regular files and folders are allowed, so that no member can follow an earlier link out of
    the folder, as in CVE-2025-4517 despite tarfile's data filter. Files of the same name are
    replaced. `most_bytes` limits the sum of all files, each with 512 bytes for its header.

    Raises:
        ValueError: a damaged file or no archive; more bytes than allowed; a member that is a link
            or a device; a name outside the folder, or one that is used twice, ignoring case.
        OSError: the disk is full.
    """
    full = explained_full_disk(f"unpack {archive} into {folder}; the archive is kept")
    with full, unfinished(folder) as part:
        try:
            _write_members(archive, part, most_bytes)
        except ValueError as error:
            raise ValueError(f"{archive} {error}; nothing unpacked") from error
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of the disk, not of the archive
            reason = str(error) or type(error).__name__
            raise ValueError(
                f"{archive} is damaged ({reason}), fetch it again; nothing unpacked"
            ) from error
        merge(part, folder)


def merge(source: Path, target: Path) -> None:
    """Move the content of `source` into `target`, over files of the same name, and remove it."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in list(source.iterdir()):
        if entry.is_dir() and (target / entry.name).is_dir():
            merge(entry, target / entry.name)
        else:
            os.replace(entry, target / entry.name)
    source.rmdir()


def _write_members(archive: Path, folder: Path, most_bytes: int) -> None:
    folder.mkdir()
    total = 0
    spelling: dict[str, PurePosixPath] = {}
    for name, size, content in _members(archive):
        path = _relative(name)
        total += size + tarfile.BLOCKSIZE
        if total > most_bytes:
            raise ValueError(f"must hold at most {most_bytes / 1e9:.1f} GB, it holds more")
        try:
            for part in (path, *path.parents):
                if spelling.setdefault(str(part).casefold(), part) != part:
                    raise FileExistsError
            _write_member(folder / path, content)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(
                f"must name each file once, case aside, {name!r} is in another's place"
            ) from None


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    drive = bool(path.parts) and ":" in path.parts[0]
    if path.is_absolute() or drive or ".." in path.parts or "\0" in name:
        raise ValueError(f"must stay in its folder, it holds {name!r}")
    return path


def _write_member(path: Path, content: IO[bytes] | None) -> None:
    if content is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, open(path, "xb") as file:
        shutil.copyfileobj(content, file, CHUNK_BYTES)


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes] | None]]:
    """Yield name, size and content of each member; a folder has no content."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                kind = info.external_attr >> 16 & 0o170000  # file type; 0 if not from Unix
                _require_plain(info.filename, info.is_dir() or kind in (0, 0o100000))
                content = None if info.is_dir() else file.open(info)
                yield info.filename, info.file_size, content
        return
    try:
        file = tarfile.open(archive, tarinfo=_ShortHeader)  # noqa: SIM115 (closed below)
    except tarfile.TarError as error:
        reason = str(error).splitlines()[-1]  # one line for each kind of compression
        raise ValueError(f"must be a .zip or .tar archive ({reason})") from error
    with file:
        for info in file:
            _require_plain(info.name, info.isdir() or (info.isreg() and not info.issparse()))
            yield info.name, info.size, None if info.isdir() else file.extractfile(info)
            file.members.clear()  # pyright: ignore (else all headers stay in memory)
        _require_end(file)


def _require_plain(name: str, plain: bool) -> None:
    if not plain:
        raise ValueError(f"must hold files and folders only, got {name!r}, a link or a device")


class _ShortHeader(tarfile.TarInfo):
    """A header that refuses a long extension, which tarfile would read into memory at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _ShortHeader:
        info = super().frombuf(buf, encoding, errors)
        if info.size > CHUNK_BYTES and not info.isfile() and not info.isdir():
            raise tarfile.ReadError(f"a header of {info.size:,} bytes")
        return info


def _require_end(file: tarfile.TarFile) -> None:
    """Raise ReadError if the archive was cut between two members; check its checksum at the end."""
    assert file.fileobj is not None
    file.fileobj.seek(file.offset)
    if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it is cut short")
    while file.fileobj.read(CHUNK_BYTES):
        pass
