"""Make text safe for terminals, tables and spreadsheets; write the end of a log."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
import unicodedata
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def has_controls(text: str) -> bool:
    """Return whether text contains control characters, such as terminal escapes, or surrogates."""
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def visible(text: str) -> str:
    r"""Return text with its control characters as escapes such as `\x1b`."""
    if not has_controls(text):
        return text
    return "".join(
        letter.encode("unicode_escape").decode() if has_controls(letter) else letter
        for letter in text
    )


def spreadsheet_cell(value: Any) -> Any:
    """Return a CSV cell that spreadsheets do not treat as a formula: put a ' before such text.

    Numbers are unchanged, also as text.
    """
    if not isinstance(value, str):
        return value
    try:
        float(value)
        return value
    except ValueError:
        return ("'" if value.startswith(FORMULA_STARTS) else "") + visible(value)


def print_any_text() -> None:
    """Make the console print characters that its encoding lacks as escapes, without an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_log(error: BaseException | None) -> None:
    """Write the traceback of the error that ended the run, if any, to the run's log and close it.

    A log that cannot be written is closed all the same; the caller reports the error.
    """
    stdout: Any = sys.stdout
    log = getattr(stdout, "file", None)
    if log is None:  # no logger, or its log has been closed
        return
    stdout.file = None
    with contextlib.suppress(OSError):
        if error is not None:
            said = "".join(traceback.format_exception(error))
            log.write(said.encode(errors="backslashreplace").decode())  # may have invalid Unicode
    with contextlib.suppress(OSError):  # closing tries once more to write the rest
        log.close()
