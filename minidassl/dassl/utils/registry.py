"""Registry: maps names to classes; the error for an unknown name suggests the nearest ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class UnknownNameError(KeyError, ValueError):
    """An unknown name; of both types, because Dassl raises a KeyError or a ValueError."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'A' or 'B'?" with the nearest of the known names, or ""."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = [repr(by_lower[key]) for key in get_close_matches(name.lower(), by_lower, 3, 0.5)]
    return f"; did you mean {' or '.join(nearest)}?" if nearest else ""


def check_availability(requested: str, available: Sequence[str], kind: str = "name") -> None:
    """Raise UnknownNameError unless `requested` is among `available`."""
    if requested not in available:
        known = ", ".join(sorted(available)) or "none (import the module that registers it)"
        hint = did_you_mean(requested, available) or ";"
        raise UnknownNameError(f"{requested!r} is not a known {kind}{hint} known: {known}")


class Registry:
    """Classes and functions by their `__name__`; `force` replaces a registered one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register `obj`, or return a decorator that does; raise KeyError for a taken name."""
        if obj is None:
            return lambda decorated: self.register(decorated, force) or decorated
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(
                f'An object named "{name}" was already registered in "{self._name}" registry'
            )
        self._objects[name] = obj
        return None

    def get(self, name: str) -> Any:
        """Return the object of that name; raise UnknownNameError if there is none."""
        check_availability(name, self.registered_names(), self._name.lower())
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """Return all names in the order of their registration."""
        return list(self._objects)
