"""Digests of files: published, at the end of the file, in a file next to it, or in the cache."""

from __future__ import annotations

import argparse
import hashlib
import os
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from causalclip.files.atomic import replacing
from causalclip.files.caches import cache_home

CHUNK_BYTES = 1 << 20
SEAL = hashlib.sha256().digest_size
STORE = "digests.sqlite"
DISK_READERS = 4  # reading several files at once is faster


def file_digest(path: str | os.PathLike, kind: str = "sha256") -> str:
    """Return the digest of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return _digest(file, os.fstat(file.fileno()).st_size, kind).hex()


def _digest(file: BinaryIO, size: int, kind: str = "sha256") -> bytes:
    digest = hashlib.new(kind)
    while size > 0 and (block := file.read(min(size, CHUNK_BYTES))):
        digest.update(block)
        size -= len(block)
    return digest.digest()


@dataclass(frozen=True)
class Known:
    """Published facts of a file: digests in hexadecimal, or its size in bytes."""

    sha256: str = ""
    md5: str = ""
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.sha256 or self.md5 or self.size)

    def difference(self, path: Path) -> str:
        """Return how the file differs from what was published, or "" if it does not."""
        if self.size and path.stat().st_size != self.size:
            return f"{path.stat().st_size:,} bytes, expected {self.size:,}"
        for kind, expected in (("sha256", self.sha256), ("md5", self.md5)):
            if expected and (actual := file_digest(path, kind)) != expected:
                return f"{kind} {actual}, expected {expected}"
        return ""


def seal(path: Path) -> None:
    """Append the sha256 of a file's content to the file."""
    digest = bytes.fromhex(file_digest(path))
    with open(path, "ab") as file:
        file.write(digest)


def is_whole(path: Path) -> bool:
    """Return whether the content of a sealed file matches the digest at its end."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size - SEAL
        return size >= 0 and _digest(file, size) == file.read()


def digest_file(path: Path) -> Path:
    """Return the path of the digest file of `path`, which has the format of `sha256sum`."""
    return path.with_name(path.name + ".sha256")


def write_digest(path: Path) -> None:
    """Write the digest file of a file."""
    with replacing(digest_file(path)) as part:
        part.write_text(f"{file_digest(path)}  {path.name}\n", encoding="utf-8")


def is_vouched_for(path: Path) -> bool:
    """Return whether a file has a digest file, which must match.

    Raises:
        ValueError: the file has another digest; names both files.
    """
    if not digest_file(path).is_file():
        return False
    words = digest_file(path).read_text(encoding="utf-8", errors="replace").split()
    actual = file_digest(path)
    if [word.lower() for word in words[:1]] != [actual]:  # some systems print it in capitals
        raise ValueError(
            f"{path} does not match {digest_file(path).name}: its sha256 is {actual}, "
            f"expected {' '.join(words[:1]) or 'nothing'}; get the file again"
        )
    return True


def require_vouched_for(path: Path) -> None:
    """Raise ValueError unless a file in a format without checksums has a digest file."""
    if not is_vouched_for(path):
        raise ValueError(
            f"{path} is of torch before 1.6, whose files have no checksums: damage cannot be "
            f"noticed. If you know the file to be whole, write its digest next to it: "
            f"causalclip digest {path} > {digest_file(path)}"
        )


# Digests of many files, stored in the cache and computed again only for changed files


def content_digests(paths: Sequence[str]) -> list[str]:
    """Return the sha256 of each file's bytes.

    A file is read once. Later calls, also in other processes, check its inode, size and times. As
    programs cannot set the time of change (ctime), a replaced file is noticed.

    Raises:
        OSError: a file that cannot be read.
    """
    states = {path: _file_state(path) for path in dict.fromkeys(paths)}
    known = _load_digests(states)
    digests = {path: digest for path, (state, digest) in known.items() if state == states[path]}
    missing = [path for path in states if path not in digests]
    with ThreadPoolExecutor(DISK_READERS) as pool:
        computed = dict(zip(missing, pool.map(file_digest, missing), strict=True))
    if computed:
        _store_digests((_key(path), states[path], digest) for path, digest in computed.items())
    digests |= computed
    return [digests[path] for path in paths]


def _file_state(path: str) -> str:
    stat = os.stat(path)
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _key(path: str) -> bytes:
    return os.fsencode(os.path.abspath(path))  # a path need not be valid text


def _open_store() -> sqlite3.Connection:
    # The store only saves time, so it is not an error if it cannot be read or written.
    folder = cache_home()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(Path(folder, STORE), timeout=30)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS digests (path BLOB PRIMARY KEY, state TEXT, digest TEXT)"
    )
    return connection


def _load_digests(paths: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the recorded state and digest of each path in the store."""
    wanted = {_key(path): path for path in paths}
    # CROSS JOIN keeps this order; otherwise SQLite may read the whole store
    query = "SELECT path, state, digest FROM wanted CROSS JOIN digests USING (path)"
    try:
        with closing(_open_store()) as connection:
            connection.execute("CREATE TEMP TABLE wanted (path BLOB PRIMARY KEY)")
            connection.executemany("INSERT INTO wanted VALUES (?)", [(p,) for p in wanted])
            rows = connection.execute(query)
            return {wanted[path]: (state, digest) for path, state, digest in rows}
    except (sqlite3.Error, OSError):
        return {}


def _store_digests(rows: Iterable[tuple[bytes, str, str]]) -> None:
    with suppress(sqlite3.Error, OSError), closing(_open_store()) as connection, connection:
        connection.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the digests of files as `sha256sum` does; return 2 if a file cannot be read."""
    parser = argparse.ArgumentParser(
        prog="causalclip digest",
        description="Print the sha256 of files: causalclip digest FILE > FILE.sha256. Weights that "
        "have such a file next to them are compared with it whenever they are loaded.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    try:
        for path in parser.parse_args(arguments).files:
            print(f"{file_digest(path)}  {path.name}")
    except OSError as error:
        print(f"causalclip digest: error: {error}", file=sys.stderr)
        return 2
    return 0
