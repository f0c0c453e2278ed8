"""Names given by the user: an unknown one is answered with the nearest known ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class UnknownNameError(KeyError, ValueError):
    """A name that is not among the known ones (Dassl raises a KeyError or a ValueError here)."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr


def nearest_names(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Return up to `limit` known names most similar to `name`, ignoring case, best first."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in get_close_matches(name.lower(), by_lower, limit, 0.5)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'A' or 'B'?", or nothing where no known name is near."""
    nearest = nearest_names(name, known)
    return f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""


def check_availability(requested: str, available: Sequence[str], kind: str = "name") -> None:
    """Check a name given by the user.

    Raises:
        UnknownNameError: `requested` is not among `available`; lists the nearest and all of them.
    """
    if requested in available:
        return
    known = ", ".join(sorted(available)) or "none (import the module that registers it)"
    hint = did_you_mean(requested, available)
    raise UnknownNameError(f"{requested!r} is not a known {kind}{hint or ';'} known: {known}")


def tolist_if_not(value: Any) -> list:
    """Return a list unchanged and anything else as the only item of a new list."""
    return value if isinstance(value, list) else [value]
