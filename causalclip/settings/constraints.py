"""Allowed values of settings, stated in the table of settings and checked before any work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Constraint:
    """The values that a setting allows."""

    words: str
    """Completes "KEY must be ..."."""
    allows: Callable[[Any], bool]


def one_of(choices: Sequence[str]) -> Constraint:
    """Allow one of `choices`."""
    return Constraint(
        f"one of {', '.join(choices)}",
        lambda value: isinstance(value, str) and value in choices,
    )


def integer(low: int = 1, high: int | None = None) -> Constraint:
    """Allow an int in [low, high]; a bool is not allowed."""
    if high is not None:
        words = f"an int in [{low}, {high}]"
    else:
        words = "a positive int" if low == 1 else f"an int of at least {low}"

    def allows(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return low <= value and (high is None or value <= high)

    return Constraint(words, allows)


def number(
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> Constraint:
    """Allow a finite number from `low` to `high`; an open end is excluded."""
    left, right = "(" if open_low else "[", ")" if open_high else "]"
    if math.isfinite(low) and math.isfinite(high):
        words = f"a number in {left}{low:g}, {high:g}{right}"
    elif math.isfinite(low):
        words = f"a finite number {'>' if open_low else '>='} {low:g}"
    elif math.isfinite(high):
        words = f"a finite number {'<' if open_high else '<='} {high:g}"
    else:
        words = "a finite number"

    def allows(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        above = value > low if open_low else value >= low
        below = value < high if open_high else value <= high
        # math.isfinite overflows for a huge int, which is finite.
        return above and below and (isinstance(value, int) or math.isfinite(value))

    return Constraint(words, allows)


def boolean() -> Constraint:
    """Allow True and False."""
    return Constraint("True or False", lambda value: isinstance(value, bool))


def fixed(only: Any) -> Constraint:
    """Allow a single value, of the same type."""
    return Constraint(repr(only), lambda value: type(value) is type(only) and value == only)


def text(holding: str = "") -> Constraint:
    """Allow text; with `holding`, text that is empty or contains this exactly once."""
    return Constraint(
        f"text with one {holding}, or empty" if holding else "text",
        lambda value: (
            isinstance(value, str) and (not holding or not value or value.count(holding) == 1)
        ),
    )


def list_of(each: Constraint, least: int = 1) -> Constraint:
    """Allow a list or tuple of at least `least` values that `each` allows."""
    return Constraint(
        f"a list of {least} or more, each {each.words}",
        lambda value: (
            isinstance(value, (list, tuple))
            and len(value) >= least
            and all(map(each.allows, value))
        ),
    )


def ordered_pair(each: Constraint) -> Constraint:
    """Allow two numbers in ascending order that `each` allows."""
    return Constraint(
        f"two numbers in ascending order, each {each.words}",
        lambda value: (
            isinstance(value, (list, tuple))
            and len(value) == 2
            and all(map(each.allows, value))
            and value[0] <= value[1]
        ),
    )


def either(one: Constraint, other: Constraint) -> Constraint:
    """Allow what one of two constraints allows."""
    return Constraint(
        f"{one.words} or {other.words}",
        lambda value: one.allows(value) or other.allows(value),
    )


def or_none(other: Constraint) -> Constraint:
    """Allow None, or what another constraint allows."""
    return either(Constraint("None", lambda value: value is None), other)
