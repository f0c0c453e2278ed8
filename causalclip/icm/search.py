"""The search for a subspace: the grid scored on held-out folds, and what is taken of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from causalclip.icm.folds import Fold
from causalclip.icm.projection import Keep
from causalclip.icm.selection import Choice, Classifier, Scored, held_out, leave_one_out
from causalclip.icm.standard_error import Gain, Judge, Rule, choose, gain_of_choosing


@dataclass(frozen=True)
class Found:
    """What a search took, and what it was taken from."""

    choice: Choice
    scored: Sequence[Scored] = ()
    gain: Gain | None = None
    """Of choosing, over the plain features; None if not asked for."""


@dataclass(frozen=True)
class Search:
    """How a cell of the grid is taken by its accuracies on folds that are held out in turn."""

    grid: Sequence[Choice]
    dim: int
    """Number of feature dimensions D."""
    keep: Keep = "invariant"
    text_weight: float = 0.5
    """What the text pairs weigh in all, where there are both kinds."""
    rule: Rule = "best"
    margin: float = 0.0
    """Standard errors that the gain must exceed, else the plain features stay; 0 asks for none."""

    def __call__(
        self, folds: Sequence[Fold], classifier: Classifier, *, judge: Classifier | None = None
    ) -> Found:
        """Score every cell on every fold, and take one.

        Args:
            folds: what is held out in turn.
            classifier: what the cells are scored by.
            judge: what the gain is measured by, two cells a fold, where `classifier` only stands in
                for it.

        Raises:
            ValueError: fewer than two folds, an empty grid, or a fold of fewer than two images
                where an error is asked for.
        """
        plain = Choice("difference", 0.0, self.dim)  # an orthonormal basis of everything
        grid = [*self.grid, plain] if self.margin and plain not in self.grid else self.grid
        options = {"keep": self.keep, "text_weight": self.text_weight}
        scored = leave_one_out(folds, grid, classifier, **options)
        taken = choose(scored, self.rule).choice
        if not self.margin:
            return Found(taken, scored)
        as_is = next(cell for cell in scored if cell.choice == plain)
        own = self._judged_by(judge, folds) if judge else None
        gain = gain_of_choosing(scored, as_is, self.rule, judge=own)
        return Found(taken if gain.exceeds(self.margin) else plain, scored, gain)

    def _judged_by(self, classifier: Classifier, folds: Sequence[Fold]) -> Judge:
        options = {"keep": self.keep, "text_weight": self.text_weight}

        def judge(held: int, choice: Choice) -> Scored:
            (right,) = held_out(held, folds, [choice], classifier, **options)
            return Scored(choice, (100 * right.double().mean().item(),), (right,))

        return judge
