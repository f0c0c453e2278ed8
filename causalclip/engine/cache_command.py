"""`causalclip cache list` and `causalclip cache clear`: image features that are kept on disk."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from tabulate import tabulate

from causalclip.engine.cache_size import Entry, entries, features_folder, limit_bytes
from causalclip.engine.feature_shards import unfinished
from causalclip.files.caches import cache_home


def parser() -> argparse.ArgumentParser:
    """What to do with the cache, and where it is."""
    p = argparse.ArgumentParser(prog="causalclip cache", description=__doc__)
    p.add_argument("action", choices=("list", "clear"), help="show the files, or remove them all")
    p.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="the cache; default: $CAUSALCLIP_CACHE, else ~/.cache/causalclip",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Show or remove what is kept; 2 where it cannot be, which is said in one line."""
    args = parser().parse_args(argv)
    try:
        perform(args)
    except (ValueError, OSError) as error:
        print(f"causalclip cache: error: {error}", file=sys.stderr)
        return 2
    return 0


def perform(args: argparse.Namespace) -> None:
    """Show or remove what is kept.

    Raises:
        ValueError: a CAUSALCLIP_CACHE_GB that is no number, or a user without a home folder.
        OSError: a file that cannot be removed.
    """
    folder = features_folder(args.folder or cache_home())
    kept = entries(folder)
    begun = unfinished(folder)
    left = f"; {len(begun)} unfinished" if begun else ""
    size = f"{sum(entry.n_bytes for entry in kept) / 1e9:.2f} GB"
    if args.action == "clear":
        for entry in kept:
            entry.path.unlink(missing_ok=True)
        for shards in begun:
            shutil.rmtree(shards, ignore_errors=True)
        print(f"Removed {len(kept)} files, {size}, from {folder}{left}")
    else:
        print(f"{folder}: {len(kept)} files, {size} of {limit_bytes() / 1e9:g} GB{left}")
        if kept:
            print(tabulate(map(row, kept), headers=["features", "images", "size", "MB", "used"]))


def row(entry: Entry) -> list[str | int]:
    """One line of the list: a file, its N images and D numbers each, and when it was used."""
    try:
        images, size = np.load(entry.path, mmap_mode="r").shape
    except (ValueError, EOFError):  # its next reader encodes again
        images, size = "damaged", ""
    used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
    return [entry.path.stem[:12], images, size, f"{entry.n_bytes / 1e6:.1f}", used]
