"""A task whose process dies. This module imports little, so that such a process is there soon."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def die_once(path: Path) -> None:
    """Kill this process unless the file is there, which is left for the next try."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
