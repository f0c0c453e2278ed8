"""Errors that a user can fix: a command prints them in one line and exits with 2."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import ParamSpec

from safetensors import SafetensorError

from causalclip.files.text import visible

P = ParamSpec("P")


class UserError(Exception):
    """Something that the user typed, or that a file contains, is wrong; the message says what."""


INPUT_ERRORS = (
    UserError,
    ValueError,
    OSError,
    FloatingPointError,  # a loss or an output is NaN
    SafetensorError,
)
"""Errors that causalclip, Dassl and Pillow raise for wrong data, files and numbers."""

_SHARED_MEMORY = ("out of shared memory", "shared memory(shm)", "unable to write to file </torch_")

CONFIGURATION_ERRORS = (KeyError, AssertionError, AttributeError, TypeError, ImportError)
"""Errors of yacs for wrong settings, of registries for names, and of missing packages."""


def sentence(error: BaseException) -> str:
    """Return the message of an error; for one in a DataLoader worker, the original message."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if text.startswith("Caught ") and "DataLoader worker" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]  # last line of a traceback
    return "\n".join(map(visible, text.split("\n"))) or type(error).__name__


def is_shared_memory_full(error: BaseException) -> bool:
    """Return whether an error of torch means that DataLoader workers have filled /dev/shm."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SHARED_MEMORY)


def unknown(what: str, name: str, known: Iterable[str], *, of: str = "") -> str:
    """Return the message for a name that is not in `known`; `of` is what the names belong to."""
    known = list(known)
    return f"unknown {what} {name}{of and f' of {of}'}; known: {' '.join(known)}{near(name, known)}"


def near(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean A or B?" with the known names nearest to `name`, or ""."""
    folded = {other.lower(): other for other in known}
    found = [folded[other] for other in get_close_matches(name.lower(), folded, cutoff=0.5)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def prints_errors(
    name: str, *others: type[Exception]
) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorate a command: print `INPUT_ERRORS` and `others` in one line, and return 2."""

    def decorate(command: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(command)
        def main(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return command(*args, **kwargs)
            except BrokenPipeError:
                raise  # the reader closed the pipe, which is no input error: see cli.py
            except (*INPUT_ERRORS, *others) as error:
                print(f"causalclip {name}: error: {sentence(error)}", file=sys.stderr)
                return 2

        return main

    return decorate
