"""The cache of image features: its folder, its size limit, and the command `causalclip cache`."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
from tabulate import tabulate

from causalclip.errors import prints_errors
from causalclip.files.atomic import remove_abandoned
from causalclip.files.caches import cache_home

LIMIT_GB = 20.0  # if CAUSALCLIP_CACHE_GB is not set; ImageNet's 50,000 test images take 0.1


@dataclass(frozen=True)
class Entry:
    """A file of the cache."""

    path: Path
    n_bytes: int
    used: float
    """Modification time in seconds since the epoch; `touch` updates it at each use."""


def feature_home() -> Path | None:
    """Return the cache folder; None if CAUSALCLIP_NO_CACHE turns the cache off.

    Print a note if other users can write to it, because features that they put there are used.
    """
    if os.environ.get("CAUSALCLIP_NO_CACHE", "") not in ("", "0"):
        return None
    for folder in (cache_home(), features_folder(cache_home())):
        if others_can_write(folder):
            _note_shared(folder)
    return cache_home()


def others_can_write(folder: Path) -> bool:
    """Return whether a user other than you and root owns a folder or may write to it.

    Write permission for your own group is accepted: on many systems you are its only member.
    """
    if not hasattr(os, "getuid") or not folder.is_dir():
        return False
    state = folder.stat()
    writers = 0o002 if state.st_gid == os.getgid() else 0o022
    return state.st_uid not in (0, os.getuid()) or bool(state.st_mode & writers)


@cache
def _note_shared(folder: Path) -> None:
    print(
        f"Note: other users can write {str(folder)!a}, and features that they put there are used: "
        "chmod go-w it, or set CAUSALCLIP_CACHE to a folder of your own"
    )


def features_folder(cache: Path) -> Path:
    """Return the folder of image features in a cache."""
    return cache / "features"


def limit_bytes() -> int:
    """Return the size limit of the whole cache in bytes, from $CAUSALCLIP_CACHE_GB.

    Raises:
        ValueError: a value that is no number, or negative.
    """
    text = os.environ.get("CAUSALCLIP_CACHE_GB") or str(LIMIT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise ValueError(f"CAUSALCLIP_CACHE_GB must be a number of gigabytes, got {text!r}")
    return int(gigabytes * 1e9)


def entries(folder: Path) -> list[Entry]:
    """Return the feature files of a folder, most recently used first; [] for a missing folder."""
    found = []
    for path in folder.glob("*.npy"):
        with suppress(FileNotFoundError):  # another process has just removed it
            stat = path.stat()
            found.append(Entry(path, stat.st_size, stat.st_mtime))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def touch(path: Path) -> None:
    """Set the time of last use of a file to now."""
    with suppress(PermissionError):  # a cache of another user, which you may only read
        os.utime(path)


def trim(folder: Path, n_bytes: int, *, keep: Path) -> list[Path]:
    """Remove the least recently used files until at most `n_bytes` remain; return those removed.

    `keep` is never removed. A process that has mapped a removed file can still read it. Temporary
    files of processes that have died are removed too.
    """
    removed, total = remove_abandoned(folder), 0
    for entry in sorted(entries(folder), key=lambda entry: entry.path != keep):
        total += entry.n_bytes
        if total > n_bytes and entry.path != keep:
            entry.path.unlink(missing_ok=True)
            removed.append(entry.path)
            total -= entry.n_bytes
    return removed


# The command


def parser() -> argparse.ArgumentParser:
    """Return the parser of `causalclip cache`."""
    p = argparse.ArgumentParser(
        prog="causalclip cache",
        description="List the image features that are kept on disk, or remove them.",
    )
    p.add_argument("action", choices=("list", "clear"), help="show the files, or remove them all")
    p.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="the cache; default: $CAUSALCLIP_CACHE, else ~/.cache/causalclip",
    )
    return p


@prints_errors("cache")
def main(argv: Sequence[str] | None = None) -> int:
    """List or remove the cached features; on an error print one line and return 2."""
    args = parser().parse_args(argv)
    folder = features_folder(args.folder or cache_home())
    kept = entries(folder)
    begun = sorted(folder.glob("*.chunks"))  # being written, or abandoned
    left = f"; {len(begun)} unfinished" if begun else ""
    size = f"{sum(entry.n_bytes for entry in kept) / 1e9:.2f} GB"
    if args.action == "clear":
        for entry in kept:
            entry.path.unlink(missing_ok=True)
        for chunks in begun:
            shutil.rmtree(chunks, ignore_errors=True)
        print(f"Removed {len(kept)} files, {size}, from {folder}{left}")
    else:
        print(f"{folder}: {len(kept)} files, {size} of {limit_bytes() / 1e9:g} GB{left}")
        if kept:
            print(tabulate(map(_row, kept), headers=["features", "images", "size", "MB", "used"]))
    return 0


def _row(entry: Entry) -> list[str | int]:
    """Return a row of the table for a file: key, images N, features D, megabytes, last use."""
    try:
        images, size = np.load(entry.path, mmap_mode="r").shape
    except (ValueError, EOFError):  # the next run that needs it encodes again
        images, size = "damaged", ""
    used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
    return [entry.path.stem[:12], images, size, f"{entry.n_bytes / 1e6:.1f}", used]
