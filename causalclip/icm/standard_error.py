"""How much of a gain in accuracy is chance: its standard error, and choices that mind it [ours].

Cells are compared image by image: what two of them get wrong together says nothing about which is
better, so the error is that of the paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from causalclip.icm.selection import Choice, Scored, best

Rule = Literal["best", "one_standard_error"]
Judge = Callable[[int, Choice], Scored]
"""Scores a cell on the fold of that number alone."""


@dataclass(frozen=True)
class Gain:
    """A difference of two accuracies, points of per cent, and how sure it is."""

    points: float
    standard_error: float

    def exceeds(self, margin: float) -> bool:
        """Whether it is more than `margin` standard errors, and more than nothing."""
        return self.points > margin * self.standard_error

    def record(self) -> dict[str, float]:
        """The gain as JSON values."""
        return asdict(self)


def paired_gain(pairs: Sequence[tuple[Scored, Scored]]) -> Gain:
    """Mean over folds of the difference in accuracy on each fold's images, and its standard error.

        sqrt(sum_f s_f^2 / n_f) / F

    with s_f the standard deviation of the differences (-1, 0 or 1 an image) of fold f's n_f images
    and F folds: the folds weigh the same, as in the choice. It is the error over images of these
    folds; that another domain may differ from all of them is not in it.

    Args:
        pairs: (one, other) of each fold, both scored on it alone; the gain is of one over other.

    Raises:
        ValueError: no folds, or a fold of fewer than two images.
    """
    if not pairs:
        raise ValueError("a gain needs at least one fold, got none")
    points, variance = 0.0, 0.0
    for one, other in pairs:
        (right,), (other_right,) = one.right, other.right
        difference = 100 * (right.double() - other_right.double())
        if len(difference) < 2:
            raise ValueError(f"a standard error needs two images a fold, got {len(difference)}")
        points += difference.mean().item()
        variance += difference.var().item() / len(difference)
    return Gain(points / len(pairs), math.sqrt(variance) / len(pairs))


def gain_over(one: Scored, other: Scored) -> Gain:
    """The gain of one cell over another on all of their folds.

    Raises:
        ValueError: as `paired_gain`.
    """
    folds = range(len(one.right))
    return paired_gain([(one.of_folds([i]), other.of_folds([i])) for i in folds])


def choose(scored: Sequence[Scored], rule: Rule = "best") -> Scored:
    """The cell that a rule takes: the best one, or the simplest within a standard error of it.

    Simplest is what changes CLIP the least: the widest subspace, of equal ones the better. After
    Breiman et al. (1984), but with the error of the paired difference.

    Raises:
        ValueError: as `paired_gain`.
    """
    top = best(scored)
    if rule == "best":
        return top
    near = [cell for cell in scored if not gain_over(top, cell).exceeds(1.0)]
    return max(near, key=lambda cell: (cell.choice.dim_inv, round(cell.mean, 6)))


def gain_of_choosing(
    scored: Sequence[Scored], plain: Scored, rule: Rule = "best", *, judge: Judge | None = None
) -> Gain:
    """What the choice gains over the plain features, measured on folds without a say in it.

    Of many cells the best is above the plain one by chance alone. So each fold in turn is left out
    of the means that the choice is made by, and the chosen cell is compared with `plain` there.

    Args:
        scored: the cells to choose from.
        plain: the plain features, scored on the same folds.
        rule: how a cell is taken.
        judge: scores the two that are compared, where that is done by other means than the choice;
            None takes what they have in `scored`.

    Raises:
        ValueError: fewer than two folds, or as `paired_gain`.
    """
    folds = range(len(plain.right))
    if len(folds) < 2:
        raise ValueError(f"a gain on folds left out needs at least two folds, got {len(folds)}")
    known = {cell.choice: cell for cell in (*scored, plain)}
    judge = judge or (lambda held, choice: known[choice].of_folds([held]))
    pairs = []
    for held in folds:
        others = [fold for fold in folds if fold != held]
        taken = choose([cell.of_folds(others) for cell in scored], rule).choice
        pairs.append((judge(held, taken), judge(held, plain.choice)))
    return paired_gain(pairs)
