"""The log: everything printed also goes to a file in the output folder."""

from __future__ import annotations

import os
import os.path as osp
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from dassl.utils.tools import mkdir_if_missing


class Logger:
    """A stdout that also writes to a file; closing it never closes the real stdout."""

    def __init__(self, fpath: str | None = None) -> None:
        # A second logger in one process replaces the first: otherwise the second run's lines would
        # also be in the first run's file and look like its results.
        self.console: TextIO = sys.stdout
        if isinstance(self.console, Logger):
            previous = self.console
            self.console = previous.console
            previous.close()
        self.file: TextIO | None = None
        if fpath is not None:
            mkdir_if_missing(osp.dirname(fpath))
            # Printed file names need not be valid text.
            how = {"encoding": "utf-8", "errors": "backslashreplace", "buffering": 1}
            self.file = open(fpath, "w", **how)  # noqa: SIM115 (stays open)

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, msg: str) -> int:
        """Write to the console and the file; raise OSError with the file's name on a full disk."""
        written = self.console.write(msg)
        if self.file is not None:
            with self._closed_on_failure(self.file):
                self.file.write(msg)
        return written

    def flush(self) -> None:
        """Flush both, the file down to the disk."""
        self.console.flush()
        if self.file is not None:
            with self._closed_on_failure(self.file):
                self.file.flush()
                os.fsync(self.file.fileno())

    @contextmanager
    def _closed_on_failure(self, file: TextIO) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.file = None
            with suppress(OSError):  # its buffer cannot be written either
                file.close()
            raise OSError(error.errno, error.strerror, file.name) from error

    def close(self) -> None:
        """Close the file, and restore stdout if it is this logger."""
        if self.file is not None:
            self.file.close()
            self.file = None
        if sys.stdout is self:
            sys.stdout = self.console

    def __getattr__(self, name: str) -> Any:
        return getattr(self.console, name)  # isatty, fileno, encoding, ...


def setup_logger(output: str | None = None) -> None:
    """Copy stdout to `output` (a .txt or .log file, or a folder for log.txt).

    An existing log is kept: the new one gets the date and time as a suffix.
    """
    if output is not None:
        fpath = output if output.endswith((".txt", ".log")) else osp.join(output, "log.txt")
        sys.stdout = Logger(_unused_path(fpath))


def _unused_path(fpath: str) -> str:
    if not osp.exists(fpath):
        return fpath
    path = stamped = fpath + time.strftime("-%Y-%m-%d-%H-%M-%S")
    count = 0
    while osp.exists(path):  # two runs within one second
        count += 1
        path = f"{stamped}-{count}"
    return path
