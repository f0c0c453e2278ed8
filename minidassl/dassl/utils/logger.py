"""Logger: stdout is shown and kept in <output>/log.txt at the same time."""

from __future__ import annotations

import os
import os.path as osp
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from dassl.utils.files import mkdir_if_missing


class Logger:
    """A stdout that also writes to a file; closing it never closes the real stdout."""

    def __init__(self, fpath: str | None = None) -> None:
        # A second logger in one process takes the first one's place: lines of the second run
        # in the first run's file would be read as results of the first.
        self.console: TextIO = sys.stdout
        if isinstance(self.console, Logger):
            previous = self.console
            self.console = previous.console
            previous.close()
        self.file: TextIO | None = None
        if fpath is not None:
            mkdir_if_missing(osp.dirname(fpath))
            self.file = open(fpath, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 (kept)

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, msg: str) -> int:
        """Write to the console and the file.

        Raises:
            OSError: the file cannot be written, as on a full disk; names it. It is given up.
        """
        written = self.console.write(msg)
        if self.file is not None:
            with self._given_up_on_failure(self.file):
                self.file.write(msg)
        return written

    def flush(self) -> None:
        """Bring both up to date, the file down to the disk."""
        self.console.flush()
        if self.file is not None:
            with self._given_up_on_failure(self.file):
                self.file.flush()
                os.fsync(self.file.fileno())

    @contextmanager
    def _given_up_on_failure(self, file: TextIO) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.file = None
            with suppress(OSError):  # it still has what it could not write
                file.close()
            raise OSError(error.errno, error.strerror, file.name) from error

    def close(self) -> None:
        """Close the file and hand stdout back if this logger still holds it."""
        if self.file is not None:
            self.file.close()
            self.file = None
        if sys.stdout is self:
            sys.stdout = self.console

    def isatty(self) -> bool:
        """Return whether the console is a terminal."""
        return self.console.isatty()

    def fileno(self) -> int:
        """Return the console's file descriptor."""
        return self.console.fileno()

    @property
    def encoding(self) -> str:
        """The console's encoding."""
        return self.console.encoding


def setup_logger(output: str | None = None) -> None:
    """Tee stdout to `output` (a .txt or .log file, or a folder for log.txt).

    An existing log is kept: the new one gets the date and time as a suffix.
    """
    if output is None:
        return
    fpath = output if output.endswith((".txt", ".log")) else osp.join(output, "log.txt")
    sys.stdout = Logger(_unused_path(fpath))


def _unused_path(fpath: str) -> str:
    if not osp.exists(fpath):
        return fpath
    stamped = fpath + time.strftime("-%Y-%m-%d-%H-%M-%S")
    path, count = stamped, 1
    while osp.exists(path):  # two runs within one second
        path, count = f"{stamped}-{count}", count + 1
    return path
