"""Text for terminals, tables and spreadsheets, which is no command there, and a log's end."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
import unicodedata
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def has_controls(text: str) -> bool:
    """Return whether text holds control characters, such as terminal escapes, or is no Unicode."""
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def visible(text: str) -> str:
    r"""Return text with its control characters as escapes: `\x1b`."""
    if not has_controls(text):
        return text
    return "".join(
        letter.encode("unicode_escape").decode() if has_controls(letter) else letter
        for letter in text
    )


def spreadsheet_cell(value: Any) -> Any:
    """Return a cell of a CSV file that no spreadsheet reads as a formula: text like one gets a '.

    Numbers stay, also those in text.
    """
    if not isinstance(value, str):
        return value
    try:
        float(value)
        return value
    except ValueError:
        return ("'" if value.startswith(FORMULA_STARTS) else "") + visible(value)


def print_any_text() -> None:
    """Let the console show what its encoding lacks as escapes, in place of a UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_log(error: BaseException | None) -> None:
    """Write what ended the run, if anything did, to its log and close it.

    A log that cannot be written is closed as it is; the caller reports the error.
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
