"""Registry: names to classes, so that a configuration can say which class to build."""

from __future__ import annotations

from typing import Any

from dassl.utils.names import check_availability


class Registry:
    """Classes and functions by their `__name__`; a name is taken only once unless forced."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Register `obj`, or return a decorator that does.

        Raises:
            KeyError: the name is taken, and this one is not forced.
        """
        if obj is not None:
            self._add(obj, force)
            return None

        def decorate(decorated: Any) -> Any:
            self._add(decorated, force)
            return decorated

        return decorate

    def _add(self, obj: Any, force: bool) -> None:
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(
                f'An object named "{name}" was already registered in "{self._name}" registry'
            )
        self._objects[name] = obj

    def get(self, name: str) -> Any:
        """Return the object of that name.

        Raises:
            UnknownNameError: nobody registered it; lists the nearest names.
        """
        check_availability(name, self.registered_names(), self._name.lower())
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """Return all names in the order of their registration."""
        return list(self._objects)
