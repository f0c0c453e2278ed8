"""JSON files, and the cache for derived files whose own folder is read-only."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from causalclip.files.atomic import replacing

READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


class NotJSONError(ValueError):
    """A text that is not JSON; the message is the reason."""


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        NotJSONError: not UTF-8, not JSON, or nested too deeply for Python's reader.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise NotJSONError("it is nested too deeply") from None
    except ValueError as error:  # wrong encoding or wrong JSON; both give the position
        raise NotJSONError(str(error)) from error


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; raise NotJSONError as `parse_json`."""
    return parse_json(path.read_bytes())


def cache_home() -> Path:
    """Return the cache folder: `$CAUSALCLIP_CACHE`, by default ~/.cache/causalclip."""
    return at_home(os.environ.get("CAUSALCLIP_CACHE") or "~/.cache/causalclip", "CAUSALCLIP_CACHE")


def at_home(path: str | os.PathLike, variable: str = "") -> Path:
    """Return `path` with ~ replaced by the user's home folder.

    Raises:
        ValueError: the user has no home folder, as in some containers, or there is no user ~NAME;
            names the environment `variable` to set instead, if given.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        hint = f"; set {variable} to a folder that can be written" if variable else ""
        raise ValueError(f"{path}: this user has no home folder{hint}") from error


def cache_folder(folder: str | os.PathLike) -> Path:
    """Return the folder in the cache for files that belong to `folder`."""
    folder = Path(os.path.abspath(folder))
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return cache_home() / f"{folder.parent.name}-{folder.name}-{key}"


def first_existing(path: str | os.PathLike) -> Path | None:
    """Return `path` if it is a file, else its copy in the cache if there is one, else None."""
    return next((file for file in (Path(path), _in_cache(path)) if file.is_file()), None)


def load_json(path: str | os.PathLike) -> Any:
    """Return the content of a derived file, or None if it is missing or damaged."""
    file = first_existing(path)
    try:
        return None if file is None else read_json(file)
    except NotJSONError as error:
        print(f"Making {str(file)!a} again, which is not JSON: {error}")
        return None


def store_json(path: str | os.PathLike, content: Any, *, keep_existing: bool = False) -> Path:
    """Write a derived file atomically, to the cache if its folder is read-only; return its path.

    With `keep_existing` the first of several processes wins: read the file again afterwards.

    Raises:
        PermissionError: the cache is read-only as well; names the variable to set.
        OSError: another failure, as a full disk.
    """
    try:
        return _write_json(Path(path), content, keep_existing)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
    try:
        return _write_json(_in_cache(path), content, keep_existing)
    except PermissionError as error:
        raise PermissionError(
            f"the data folder is read-only and so is {_in_cache(path).parent}; "
            "set CAUSALCLIP_CACHE to a folder that can be written"
        ) from error


def _in_cache(path: str | os.PathLike) -> Path:
    return cache_folder(Path(path).parent) / Path(path).name


def _write_json(path: Path, content: Any, keep_existing: bool) -> Path:
    with replacing(path, keep_existing=keep_existing) as part:
        part.write_text(json.dumps(content), encoding="utf-8")
    return path
