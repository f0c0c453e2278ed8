"""Search spaces: the values of a method's settings that `causalclip tune` tries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class LogUniform:
    """Numbers from `low` to `high`, uniform in their logarithm."""

    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Shares:
    """Fractions of the recipe's integer, rounded and at least 1: for depths and lengths."""

    values: tuple[float, ...]

    def of(self, number: int) -> Choice:
        """Return the values for a recipe's integer."""
        return Choice(tuple(sorted({max(1, round(share * number)) for share in self.values})))


SearchSpace: TypeAlias = Mapping[str, LogUniform | Choice | Shares]
"""By key; keys separated by spaces get one value. A key without a dot is the method's own."""

GRADIENT_SPACE: SearchSpace = {"OPTIM.LR": LogUniform(0.0005, 0.02)}
"""Search space of every method that learns by gradient descent."""
DEPTHS = Shares((0.25, 0.5, 1.0))
