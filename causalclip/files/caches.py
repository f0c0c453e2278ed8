"""Where derived files go, and how: written whole or not at all, beside the data or in the cache."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from causalclip.files.atomic import replacing
from causalclip.files.json_file import NotJSONError, read_json

READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


def cache_home() -> Path:
    """Return the one cache folder: `$CAUSALCLIP_CACHE`, by default ~/.cache/causalclip."""
    return at_home(os.environ.get("CAUSALCLIP_CACHE") or "~/.cache/causalclip", "CAUSALCLIP_CACHE")


def at_home(path: str | os.PathLike, variable: str) -> Path:
    """A path with ~ as the user's home folder.

    Raises:
        ValueError: the user has none, as in some containers; names the `variable` to set instead.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: this user has no home folder; set {variable} to a folder that can be written"
        ) from error


def cache_folder(folder: str | os.PathLike) -> Path:
    """Return the place in the cache for what belongs to `folder`."""
    folder = Path(os.path.abspath(folder))
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return cache_home() / f"{folder.parent.name}-{folder.name}-{key}"


def cache_twin(path: str | os.PathLike) -> Path:
    """Return the place in the cache that stands in for `path` when its folder is read-only."""
    path = Path(path)
    return cache_folder(path.parent) / path.name


def first_existing(path: str | os.PathLike) -> Path | None:
    """Return `path`, or its twin in the cache, or None: whichever is a file."""
    return next((place for place in (Path(path), cache_twin(path)) if place.is_file()), None)


def load_json(path: str | os.PathLike) -> Any:
    """Return the content of a derived file, or None if there is none or it is damaged."""
    place = first_existing(path)
    if place is None:
        return None
    try:
        return read_json(place)
    except NotJSONError as error:
        print(f"Making {str(place)!a} again, which is not JSON: {error}")
        return None


def store_json(path: str | os.PathLike, content: Any, *, keep_existing: bool = False) -> Path:
    """Write `content` to `path`, or to its twin in the cache if that is read-only; return where.

    Readers see the old file or the new one, never a part. With `keep_existing` the first of several
    processes wins and the others' content is dropped, so the caller has to read the file again.

    Raises:
        PermissionError: the cache is read-only as well; says what to set.
        OSError: another failure, as a full disk.
    """
    text = json.dumps(content)
    try:
        return _write(Path(path), text, keep_existing)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        return _write_twin(cache_twin(path), text, keep_existing)


def _write_twin(twin: Path, text: str, keep_existing: bool) -> Path:
    try:
        return _write(twin, text, keep_existing)
    except PermissionError as error:
        raise PermissionError(
            f"the data folder is read-only and so is {twin.parent}; "
            "set CAUSALCLIP_CACHE to a folder that can be written"
        ) from error


def _write(path: Path, text: str, keep_existing: bool) -> Path:
    with replacing(path, keep_existing=keep_existing) as part:
        part.write_text(text, encoding="utf-8")
    return path
