"""The cache of image features: where it is, and how large it may grow before the oldest go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from causalclip.files.caches import cache_home
from causalclip.files.unfinished import remove_abandoned

LIMIT_GB = 20.0  # without CAUSALCLIP_CACHE_GB; ImageNet's 50,000 test images are 0.1


@dataclass(frozen=True)
class Entry:
    """A file of the cache."""

    path: Path
    n_bytes: int
    used: float
    """Seconds since the epoch; a file system need not note readings, so `touch` does."""


def feature_home() -> Path | None:
    """The cache folder; None where the user has set CAUSALCLIP_NO_CACHE."""
    off = os.environ.get("CAUSALCLIP_NO_CACHE", "") not in ("", "0")
    return None if off else cache_home()


def features_folder(cache: Path) -> Path:
    """Where in the cache image features lie."""
    return cache / "features"


def limit_bytes() -> int:
    """The size that $CAUSALCLIP_CACHE_GB allows all features together, in bytes.

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
    """The files of features, the one used last first; of a folder that is not there, none."""
    return sorted(_entries(folder), key=lambda entry: entry.used, reverse=True)


def _entries(folder: Path) -> Iterator[Entry]:
    for path in folder.glob("*.npy"):
        with suppress(FileNotFoundError):  # another process has just removed it
            stat = path.stat()
            yield Entry(path, stat.st_size, stat.st_mtime)


def touch(path: Path) -> None:
    """Note that a file is used now."""
    with suppress(PermissionError):  # somebody else's cache: its owner's readings count
        os.utime(path)


def trim(folder: Path, n_bytes: int, *, keep: Path) -> list[Path]:
    """Remove what was used least recently until all files together fit.

    A process that has mapped a removed file reads on: its bytes stay until it lets go.

    Args:
        folder: of features.
        n_bytes: what may stay.
        keep: a file that stays whatever its size.

    Returns:
        The files that were removed, with those that dead processes have left unfinished.
    """
    removed, total = remove_abandoned(folder), 0
    for entry in sorted(entries(folder), key=lambda entry: entry.path != keep):
        total += entry.n_bytes
        if total > n_bytes and entry.path != keep:
            entry.path.unlink(missing_ok=True)
            removed.append(entry.path)
            total -= entry.n_bytes
    return removed
