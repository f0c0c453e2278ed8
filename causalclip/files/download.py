"""Fetches released weights and data: resumable, with a progress bar, and checked by a digest."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

ATTEMPTS = 5  # a connection that breaks is taken up again where it ended, this often
BLOCK = 1 << 20
TIMEOUT = 30


@dataclass(frozen=True)
class Known:
    """What is published of a file's bytes: a digest, in hexadecimal, or at least how many."""

    sha256: str = ""
    md5: str = ""
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.sha256 or self.md5 or self.size)

    def difference(self, path: Path) -> str:
        """What the file has otherwise, and what was expected; "" for nothing."""
        if self.size and path.stat().st_size != self.size:
            return f"{path.stat().st_size:,} bytes, expected {self.size:,}"
        for kind, expected in (("sha256", self.sha256), ("md5", self.md5)):
            if expected and (found := file_digest(path, kind)) != expected:
                return f"{kind} {found}, expected {expected}"
        return ""


NOTHING = Known()


def fetch(url: str, folder: str | os.PathLike, *, known: Known = NOTHING) -> Path:
    """Return the local copy of `url` in `folder`, downloading it when it is missing.

    The bytes arrive in `<file>.part`, so a download that was interrupted continues, and take their
    final name only after they are what is known of them.

    Raises:
        ConnectionError: the file cannot be reached; the message says how to put it there by hand.
        ValueError: the bytes that arrived are not the expected ones.
    """
    target = Path(folder) / url.rsplit("/", 1)[-1]
    if target.is_file():
        if not (found := known.difference(target)):
            return target
        warnings.warn(f"{target} is damaged ({found}); fetching it again", stacklevel=2)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _fetch_part(url, part, target)
    require(known, part, url)
    os.replace(part, target)
    return target


def require(known: Known, part: Path, url: str) -> None:
    """Delete what has arrived if it is not what is known of it.

    Raises:
        ValueError: it was not; says what it has otherwise.
    """
    if found := known.difference(part):
        part.unlink()
        raise ValueError(
            f"{url} has {found}; the copy was deleted, try again (and let only one process "
            "download at a time)"
        )


def file_digest(path: str | os.PathLike, kind: str = "sha256") -> str:
    """Return the digest of a file, in hexadecimal."""
    digest = hashlib.new(kind)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fetch_part(url: str, part: Path, target: Path) -> None:
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            if _append(url, part, target.name):
                return
        except (OSError, http.client.HTTPException) as error:
            # With nothing gained another attempt would fail the same way.
            if _size(part) == before:
                raise ConnectionError(_by_hand(url, target, error)) from error
    raise ConnectionError(_by_hand(url, target, f"the connection broke {ATTEMPTS} times"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(url: str, part: Path, label: str) -> bool:
    """Add what is still missing to `part`; True when the server's last byte has arrived."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing is left to send; the checksum decides
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with open(part, "ab" if start else "wb") as file:
            _copy(response, file, start, total, label)
    return total is None or _size(part) >= total


def _copy(response: Any, file: BinaryIO, start: int, total: int | None, label: str) -> None:
    with tqdm(initial=start, total=total, unit="B", unit_scale=True, desc=label) as bar:
        while block := response.read(BLOCK):
            file.write(block)
            bar.update(len(block))


def _by_hand(url: str, target: Path, reason: object) -> str:
    return (
        f"cannot download {target.name}: {reason}. What has arrived is kept, running again goes "
        f"on from there. Or fetch {url} on a machine with a connection and put the file into the "
        f"folder {target.parent}"
    )
