"""Damaged content of files, and calls of commands on them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st

faults = settings.get_profile("faults")
"""Decorator of the tests; `--faults N` sets the number of damaged inputs of each."""

WORDS = (b"", b"null", b"-1", b"1e999", b'"', b"[", b"{", b"../", b"\x00", b"\xff", b"9" * 30)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Return the content with a few bytes flipped, cut, dropped, repeated, inserted or zeroed."""
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 5)))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.integers(1, 40))
        head, tail = content[:place], content[place:]
        kind = draw(st.sampled_from(("flip", "cut", "drop", "repeat", "insert", "zero")))
        if kind == "flip":
            bit = 1 << draw(st.integers(0, 7))
            content = head + bytes(byte ^ bit for byte in tail[:1]) + tail[1:]
        elif kind == "cut":
            content = head
        elif kind == "drop":
            content = head + tail[length:]
        elif kind == "repeat":
            content = head + tail[:length] + tail
        elif kind == "insert":
            content = head + draw(st.sampled_from(WORDS)) + tail
        else:
            content = head + bytes(len(tail[:length])) + tail[length:]
    return content


def called(command: Callable[[list[str]], int], *words: object) -> tuple[int, str, str]:
    """Return the status of a command and its standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command([str(word) for word in words])
    return status, out.getvalue(), err.getvalue()
