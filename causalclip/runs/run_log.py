"""The end of a run's log, which Dassl's logger keeps in sys.stdout; its disk may be full."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Any


def end_log(error: BaseException | None) -> None:
    """Write what ended the run, if anything did, to its log and close it.

    A log that cannot be written is closed as it is: what ended the run is said elsewhere.
    """
    stdout: Any = sys.stdout
    log = getattr(stdout, "file", None)
    if log is None:  # no logger, or one that has given up its file
        return
    stdout.file = None
    with contextlib.suppress(OSError):
        if error is not None:
            said = "".join(traceback.format_exception(error))
            log.write(said.encode(errors="backslashreplace").decode())  # a name may be no text
    with contextlib.suppress(OSError):  # what is still to be written is tried once more
        log.close()
