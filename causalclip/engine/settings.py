"""Allowed values of settings, declared beside their defaults and checked before any work.

After scikit-learn's `_parameter_constraints`: a trainer's `constraints` says of every key of its
`defaults` what may stand there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Constraint(Protocol):
    """What a value may be: a test, and the words for an error."""

    def allows(self, value: Any) -> bool:
        """Whether the value may stand there."""
        ...

    @property
    def words(self) -> str:
        """Completes "KEY must be ..."."""
        ...


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    choices: Sequence[str]

    def allows(self, value: Any) -> bool:
        """It is one of `choices`."""
        return isinstance(value, str) and value in self.choices

    @property
    def words(self) -> str:
        """Names all choices."""
        return f"one of {', '.join(map(str, self.choices))}"


@dataclass(frozen=True)
class Whole:
    """An int of at least `low` and at most `high`."""

    low: int = 1
    high: int | None = None

    def allows(self, value: Any) -> bool:
        """It is an int in the range; a bool is none."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return self.low <= value and (self.high is None or value <= self.high)

    @property
    def words(self) -> str:
        """Names the range."""
        if self.high is not None:
            return f"an int in [{self.low}, {self.high}]"
        return "a positive int" if self.low == 1 else f"an int of at least {self.low}"


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`, the ends included unless `open_low`, `open_high`."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def allows(self, value: Any) -> bool:
        """It is finite and in the range; a bool is no number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        # An int is finite, and a huge one cannot be asked.
        return (isinstance(value, int) or math.isfinite(value)) and above and below

    @property
    def words(self) -> str:
        """Names the range."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
            return f"a number in {left}{self.low:g}, {self.high:g}{right}"
        if math.isfinite(self.low):
            return f"a finite number {'>' if self.open_low else '>='} {self.low:g}"
        if math.isfinite(self.high):
            return f"a finite number {'<' if self.open_high else '<='} {self.high:g}"
        return "a finite number"


@dataclass(frozen=True)
class Flag:
    """True or False."""

    words = "True or False"

    def allows(self, value: Any) -> bool:
        """It is a bool."""
        return isinstance(value, bool)


@dataclass(frozen=True)
class Fixed:
    """The one value that can be."""

    value: Any

    def allows(self, value: Any) -> bool:
        """It is that one, of the same type."""
        return type(value) is type(self.value) and value == self.value

    @property
    def words(self) -> str:
        """Names it."""
        return repr(self.value)


@dataclass(frozen=True)
class Text:
    """Any text; with `holding`, text that holds this exactly once, or is empty."""

    holding: str = ""

    def allows(self, value: Any) -> bool:
        """It is text, and holds `holding` once where that is asked for."""
        if not isinstance(value, str):
            return False
        return not self.holding or not value or value.count(self.holding) == 1

    @property
    def words(self) -> str:
        """Names what it must hold."""
        return f"text with one {self.holding}, or empty" if self.holding else "text"


@dataclass(frozen=True)
class ListOf:
    """A list of values that another constraint allows, at least `least` of them."""

    each: Constraint
    least: int = 1

    def allows(self, value: Any) -> bool:
        """It is a list or tuple, long enough, of allowed values."""
        return (
            isinstance(value, (list, tuple))
            and len(value) >= self.least
            and all(self.each.allows(item) for item in value)
        )

    @property
    def words(self) -> str:
        """Names the length and what each must be."""
        return f"a list of {self.least} or more, each {self.each.words}"


@dataclass(frozen=True)
class Interval:
    """Two numbers, the first no larger, that another constraint allows."""

    each: Constraint

    def allows(self, value: Any) -> bool:
        """It is a list or tuple of two such numbers."""
        two = isinstance(value, (list, tuple)) and len(value) == 2
        return two and all(map(self.each.allows, value)) and value[0] <= value[1]

    @property
    def words(self) -> str:
        """Names what each must be."""
        return f"two numbers in ascending order, each {self.each.words}"


@dataclass(frozen=True)
class Maybe:
    """None, or what another constraint allows."""

    other: Constraint

    def allows(self, value: Any) -> bool:
        """It is None, or the other constraint allows it."""
        return value is None or self.other.allows(value)

    @property
    def words(self) -> str:
        """Names both."""
        return f"None or {self.other.words}"


@dataclass(frozen=True)
class Either:
    """What one or the other of two constraints allows."""

    one: Constraint
    other: Constraint

    def allows(self, value: Any) -> bool:
        """Whether one of them allows the value."""
        return self.one.allows(value) or self.other.allows(value)

    @property
    def words(self) -> str:
        """Completes "KEY must be ..."."""
        return f"{self.one.words} or {self.other.words}"


def check_settings(
    settings: Mapping[str, Any], constraints: Mapping[str, Constraint], *, where: str
) -> None:
    """Raise for the first setting that its constraint does not allow.

    Raises:
        ValueError: names the key below `where`, what is allowed and what came.
    """
    for key, constraint in constraints.items():
        if key in settings and not constraint.allows(settings[key]):
            raise ValueError(f"{where}.{key} must be {constraint.words}, got {settings[key]!r}")
