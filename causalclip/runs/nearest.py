"""An unknown name, with those there are and the nearest of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(what: str, name: str, known: Iterable[str], *, of: str = "") -> str:
    """The sentence for a name that is none of `known`; `of` says whose names they are."""
    known = list(known)
    folded = {other.lower(): other for other in known}
    near = [folded[other] for other in get_close_matches(name.lower(), folded, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {what} {name}{of and f' of {of}'}; known: {' '.join(known)}{hint}"
