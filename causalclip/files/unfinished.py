"""Names of unfinished files and folders, and the removal of those whose writer is dead."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

ABANDONED_AFTER = 86_400  # seconds: what another machine writes takes minutes, not a day
ENDING = ".part"


def unfinished(path: Path) -> Path:
    """A hidden neighbour of `path` to write to, which says who writes: host, process, token.

    What earlier writers of the same path have left is removed first.
    """
    remove_abandoned(path.parent, path.name)
    writer = f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{writer}{ENDING}")


def remove_abandoned(folder: Path, name: str | None = None) -> list[Path]:
    """Remove what dead writers have left in a folder, for the file `name` or any; returns it.

    A writer on this machine is dead when its process is; one of another machine, when nothing has
    changed for a day.
    """
    removed = []
    pattern = "*" if name is None else glob.escape(name)
    for path in folder.glob(f".{pattern}.*{ENDING}"):
        if _is_dead(path):
            print(f"Removing {path}, left by a process that died")
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _host() -> str:
    return socket.gethostname().replace("-", "_").replace(".", "_")[:32]


def _is_dead(path: Path) -> bool:
    host, _, process = path.name.removesuffix(ENDING).rpartition(".")[2].partition("-")
    number = process.partition("-")[0]
    if host == _host() and number.isdigit():
        return not _is_alive(int(number))
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_AFTER
    except FileNotFoundError:  # its writer has just finished
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 asks only
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
