"""The readable name of settings that were given beside a recipe: what its folder is called by."""

from __future__ import annotations

import hashlib
import re
from ast import literal_eval
from collections.abc import Mapping, Sequence
from typing import Any

from causalclip.records.identity import counted_value
from causalclip.settings.table import changes_results

LONGEST = 220
"""Bytes: file systems take 255, and the recipe's name stands before it."""
VAGUE = ("NAME",)
"""Last words of a key that say nothing alone."""


def variant_name(pairs: Sequence[str], known: Mapping[str, Any]) -> str:
    """Return, for KEY VALUE pairs such as TRAINER.CDC.N_TEMPLATES 2, "N_TEMPLATES=2".

    Args:
        pairs: KEY VALUE pairs; the last of a key counts.
        known: all settings of the recipe: a pair that repeats one names no variant.
    """
    given = dict(zip(pairs[::2], pairs[1::2], strict=True))
    changes = {
        key: value
        for key, value in given.items()
        if changes_results(key)
        and counted_value(key, known.get(key)) != counted_value(key, parse_value(value))
    }
    short = [_short(key) for key in changes]
    named = (
        f"{key if short.count(_short(key)) > 1 else _short(key)}={_printable(value)}"
        for key, value in changes.items()
    )
    return _bounded(",".join(sorted(named)))


def parse_value(text: str) -> Any:
    """Return a VALUE of the command line as yacs reads it."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _bounded(name: str) -> str:
    """A name that a folder can have; the end of a longer one is its digest."""
    content = name.encode()
    if len(content) <= LONGEST:
        return name
    digest = hashlib.sha256(content).hexdigest()[:10]
    return f"{content[: LONGEST - len(digest) - 1].decode(errors='ignore')}-{digest}"


def _short(key: str) -> str:
    *above, last = key.split(".")
    return above[-1] if last in VAGUE and above else last


def _printable(value: str) -> str:
    """A value as part of a folder's name; of a path, the file's name without its suffix."""
    name = re.sub(r"\.\w{2,}$", "", value.rsplit("/", 1)[-1]) if "/" in value else value
    return re.sub(r"[^\w.+-]+", "-", name).strip("-")
