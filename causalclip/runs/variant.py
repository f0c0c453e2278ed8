"""The readable name of settings that were given beside a recipe: what its folder is called by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from causalclip.runs.identity import NO_MATTER, Settings, counted, parsed

LONGEST = 220
"""Bytes: file systems take 255, and the recipe's name stands before it."""
VAGUE = ("NAME",)
"""Last words of a key that say nothing alone."""


def variant(pairs: Sequence[str], known: Settings) -> str:
    """For KEY VALUE pairs such as TRAINER.CDC.N_TEMPLATES 2: "N_TEMPLATES=2"; "" for none.

    Args:
        pairs: KEY VALUE pairs; the last of a key counts.
        known: what the recipe's files say: a pair that repeats them makes no variant.
    """
    given = dict(zip(pairs[::2], pairs[1::2], strict=True))
    mattering = {
        key: value
        for key, value in given.items()
        if key not in NO_MATTER and known.get(key, _NOTHING) != counted(key, parsed(value))
    }
    short = [_short(key) for key in mattering]
    named = (
        f"{key if short.count(_short(key)) > 1 else _short(key)}={_printable(value)}"
        for key, value in mattering.items()
    )
    return _bounded(",".join(sorted(named)))


def _bounded(name: str) -> str:
    """A name that a folder can have; the end of a longer one is its digest."""
    content = name.encode()
    if len(content) <= LONGEST:
        return name
    digest = hashlib.sha256(content).hexdigest()[:10]
    return f"{content[: LONGEST - len(digest) - 1].decode(errors='ignore')}-{digest}"


_NOTHING = object()


def _short(key: str) -> str:
    *above, last = key.split(".")
    return above[-1] if last in VAGUE and above else last


def _printable(value: str) -> str:
    """A value as part of a folder's name; of a path, the file's name without its suffix."""
    name = re.sub(r"\.\w{2,}$", "", value.rsplit("/", 1)[-1]) if "/" in value else value
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")
