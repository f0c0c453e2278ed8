"""The choice of CLIP-ICM's subspace, with its gain and the gain's standard error [ours].

Two cells of the grid are compared image by image. An image that both classify wrongly does not
show which is better, so the standard error is that of the paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from causalclip.icm.certainty import (
    UNDETERMINED,
    Certainty,
    bootstrap,
    principal_angles,
    share_kept,
)
from causalclip.icm.config import ICMConfig, Rule, Subspace
from causalclip.icm.folds import Fold, pooled
from causalclip.icm.projection import InvariantProjection
from causalclip.icm.selection import (
    Choice,
    Classifier,
    RidgeClassifier,
    Scored,
    best,
    held_out,
    leave_one_out,
    logistic_classifier,
    zeroshot_classifier,
)
from causalclip.icm.subspace import InterventionMoments

Judge = Callable[[int, Choice], Tensor]
"""Function from the number of a fold and a cell to bools (N,): which of the fold's held-out
features the cell classifies correctly."""


@dataclass(frozen=True)
class Gain:
    """A difference of two accuracies in percentage points, and its standard error."""

    points: float
    standard_error: float

    def exceeds(self, margin: float) -> bool:
        """Return whether the gain is above `margin` standard errors, and above 0."""
        return self.points > margin * self.standard_error


def paired_gain(pairs: Sequence[tuple[Tensor, Tensor]]) -> Gain:
    """Return the mean over folds of the difference in accuracy, and its standard error.

        sqrt(sum_f s_f^2 / n_f) / F

    with s_f the standard deviation of the differences (-1, 0 or 1 per image) over the n_f images of
    fold f, and F folds of equal weight. It is the error over images, not over domains. Each pair is
    of one fold: which images (n_f,) the first and the second cell classify correctly.

    Raises:
        ValueError: a fold of fewer than two images.
    """
    points, variance = 0.0, 0.0
    for right, other in pairs:
        difference = 100 * (right.double() - other.double())
        if len(difference) < 2:
            raise ValueError(f"a standard error needs two images a fold, got {len(difference)}")
        points += difference.mean().item()
        variance += difference.var().item() / len(difference)
    return Gain(points / len(pairs), math.sqrt(variance) / len(pairs))


def choose(scored: Sequence[Scored], rule: Rule = "best") -> Scored:
    """Return the best cell, or by `one_standard_error` the simplest cell within an error of it.

    The simplest cell changes CLIP the least: it has the widest subspace, of equally wide ones the
    better mean. This is the rule of Breiman et al. (1984), but with the error of the paired
    difference. `worst_case` takes the cell whose worst fold is best, of equal ones the better mean.
    """
    if rule == "worst_case":
        return max(scored, key=lambda c: (round(c.worst, 6), round(c.mean, 6), c.choice.dim_inv))
    top = best(scored)
    if rule == "best":
        return top
    gains = [paired_gain(list(zip(top.right, cell.right, strict=True))) for cell in scored]
    near = [cell for cell, gain in zip(scored, gains, strict=True) if not gain.exceeds(1.0)]
    return max(near, key=lambda cell: (cell.choice.dim_inv, round(cell.mean, 6)))


def gain_of_choosing(
    scored: Sequence[Scored], plain: Scored, rule: Rule = "best", *, judge: Judge | None = None
) -> Gain:
    """Return the gain of the choice over the plain features, on folds that the choice did not use.

    The best of many cells is better than the plain one by chance alone. So leave each fold in turn
    out of the choice, and compare the chosen cell with `plain` on that fold, by `judge` or, without
    a judge, by their scores.

    Raises:
        ValueError: as `paired_gain`.
    """
    folds = range(len(plain.right))
    by_choice = {cell.choice: cell for cell in (*scored, plain)}
    judge = judge or (lambda held, choice: by_choice[choice].right[held])
    pairs = []
    for held in folds:
        others = [fold for fold in folds if fold != held]
        taken = choose([cell.of_folds(others) for cell in scored], rule).choice
        pairs.append((judge(held, taken), judge(held, plain.choice)))
    return paired_gain(pairs)


# The search


def search(
    config: ICMConfig,
    folds: Sequence[Fold],
    classifier: Classifier,
    *,
    judge: Classifier | None = None,
    chance: float | None = None,
) -> tuple[Choice, Sequence[Scored], Gain | None, str]:
    """Score every cell of the grid on every fold, choose one, and measure the gain of choosing.

    Keep the plain features if the gain does not exceed `select_margin` standard errors or the
    evidence is too thin (`thin_evidence`); a margin of 0 skips both tests. `judge` measures the
    gain if `classifier` is only an approximation; `chance` is as in `thin_evidence`. Return the
    choice, the scored cells, the gain, and why the evidence is too thin or "".
    """
    plain = plain_choice(folds)
    grid = grid_of(config, plain.dim_inv)
    if config.select_margin and plain not in grid:
        grid.append(plain)
    scored = leave_one_out(config, folds, grid, classifier)
    taken = choose(scored, config.rule).choice
    if not config.select_margin:
        return taken, scored, None, ""

    def judged(held: int, choice: Choice) -> Tensor:
        return held_out(config, held, folds, [choice], judge or classifier)[0]

    unchanged = next(cell for cell in scored if cell.choice == plain)
    thin = thin_evidence(config, folds, unchanged, chance)
    if min(len(fold.labels) for fold in folds) < 2:  # too few images for a standard error
        return plain, scored, None, thin
    gain = gain_of_choosing(scored, unchanged, config.rule, judge=judged if judge else None)
    stays = thin or not gain.exceeds(config.select_margin)
    return plain if stays else taken, scored, gain, thin


def plain_choice(folds: Sequence[Fold]) -> Choice:
    """Return the cell of the plain features: an orthonormal basis of everything."""
    return Choice("difference", 0.0, folds[0].features.shape[1])


def thin_evidence(
    config: ICMConfig, folds: Sequence[Fold], plain: Scored, chance: float | None = None
) -> str:
    """Return why the folds are too little evidence for a choice; "" if they are enough [ours].

    A fold may have too few images, or the plain features may be too inaccurate: their mean accuracy
    must be `select_above_chance` points above `chance`, by default 100 / K per cent for K classes.
    """
    fewest, least = min(len(fold.labels) for fold in folds), max(2, config.select_images)
    if fewest < least:
        return f"{fewest} images in a source, fewer than {least}"
    if chance is None:
        chance = 100 / len(torch.cat([fold.labels for fold in folds]).unique())
    if (points := plain.mean - chance) < config.select_above_chance:
        least_points = f"not {config.select_above_chance:g}"
        return f"plain features are {points:.1f} points above chance, {least_points}"
    return ""


def grid_of(config: ICMConfig, dim: int) -> list[Choice]:
    """Return the cells of the grid: each strength of each estimator with each dimension k."""
    strengths = {"difference": config.grid_lams, "generalized": config.grid_eps}
    dims = sorted({max(1, round(share * dim)) for share in config.grid_dims})
    return [
        Choice(estimator, strength, k, config.orthonormal)
        for estimator in dict.fromkeys(config.grid_estimators)
        for strength in strengths[estimator]
        for k in dims
    ]


def classifier_for(
    config: ICMConfig, head: Subspace, folds: Sequence[Fold], text: Tensor
) -> Classifier:
    """Return the classifier that scores a head's cells, from text features (K, D)."""
    if head != "linear_probe":
        normalize, new_only = config.normalize_projected, head == "new_classes"
        return zeroshot_classifier(text, normalize=normalize, new_only=new_only)
    if config.select_probe == "logistic":
        return logistic_classifier(len(text), c=config.c, max_iter=config.max_iter)
    return RidgeClassifier(folds, len(text))


def folds_for(config: ICMConfig, head: Subspace, folds: Sequence[Fold]) -> Sequence[Fold]:
    """Return the folds with only the pairs that are used for a head's subspace."""
    if config.uses_texts(head):
        return folds
    return [replace(fold, texts=None) for fold in folds]


# The chosen subspace


@dataclass(frozen=True)
class Chosen:
    """A head's subspace, the cell of the grid that gave it, and how that was chosen."""

    choice: Choice
    projection: InvariantProjection
    scored: Sequence[Scored] = ()
    """The cells of the grid with their scores; empty if nothing was chosen."""
    gain: Gain | None = None
    """Gain of choosing over the plain features, on left-out folds; None if not measured."""
    certainty: Certainty | None = None
    """How far resampled images turn the subspace; None if not measured."""
    twins: Mapping[str, float] | None = None
    """Comparison with the estimate from exact twins; None without enough twins."""
    thin: str = ""
    """Why the evidence was too thin for a choice; empty if it was not."""

    def record(self) -> dict[str, Any]:
        """Return the choice as JSON values."""
        optional = {
            "gain": self.gain and asdict(self.gain),
            "certainty": self.certainty and self.certainty.record(),
            "twins": self.twins,
            "thin": self.thin or None,
        }
        return {
            "choice": asdict(self.choice),
            "source_accuracy": self.source_accuracy,
            "grid": [cell.record() for cell in self.scored],
            "settings": asdict(self.projection.settings),
            "intervention_energy_kept": self.projection.intervention_energy_kept,
            "feature_energy_kept": self.projection.feature_energy_kept,
            "spectrum": self.projection.spectrum.tolist(),
            **{name: record for name, record in optional.items() if record is not None},
        }

    @property
    def source_accuracy(self) -> float | None:
        """Mean accuracy of the choice on the held-out folds, per cent; None if not chosen."""
        return next((cell.mean for cell in self.scored if cell.choice == self.choice), None)

    def lines(self) -> list[str]:
        """Return the choice, its gain and its certainty as lines of text."""
        choice, projection, width = self.choice, self.projection, len(self.projection.basis)
        changes, energy = projection.intervention_energy_kept, projection.feature_energy_kept
        what = f"{choice.estimator}, strength {choice.strength:g}, {choice.dim_inv} of {width}"
        shares = f"{100 * changes:.1f} % of the interventions' change and {100 * energy:.1f} %"
        lines = [f"{what} dimensions; keeps {shares} of the features' energy"]
        if self.gain is not None:
            stays = "; all are kept" if choice.dim_inv == width and not self.thin else ""
            lines.append(
                f"choosing gains {self.gain.points:.2f} points on sources left out, standard error "
                f"{self.gain.standard_error:.2f}{stays}"
            )
        if self.thin:
            lines.append(f"all are kept: {self.thin}")
        if self.certainty is not None:
            angle = self.certainty.quantile(0.95)
            lines.append(f"k = {choice.dim_inv}: 95 % of angles below {angle:.0f} degrees")
        if self.certainty is not None and not self.certainty.determined:
            lines.append(
                "warning: the subspace is not determined, half of the resamples turn it by more "
                f"than {UNDETERMINED:g} degrees: use more images or another dimension"
            )
        return lines


def choose_subspace(
    config: ICMConfig,
    head: Subspace,
    folds: Sequence[Fold],
    text: Tensor,
    *,
    seed: int,
    exact: InterventionMoments | None = None,
) -> Chosen:
    """Choose and estimate the subspace for a head; with `bootstrap`, also estimate its certainty.

    `text` are features (K, D) of the classes, `seed` is the seed of the resamples, and `exact` are
    moments of at least D exact twins to compare with. The folds of `new_classes` share no class.
    """
    folds = folds_for(config, head, folds)
    strength = config.lam if config.estimator == "difference" else config.eps
    choice = Choice(config.estimator, strength, config.dim_inv, config.orthonormal)
    scored, gain, certainty, twins, thin = (), None, None, None, ""
    if head == "new_classes" and len(folds) < 2:
        choice = plain_choice(folds)
        thin = f"{len(text)} classes, fewer than two to hold out and two to keep"
    elif head == "new_classes" or config.select != "fixed":
        classifier, judge = classifier_for(config, head, folds, text), None
        if isinstance(classifier, RidgeClassifier):
            judge = logistic_classifier(len(text), c=config.c, max_iter=config.max_iter)
        ways = [len(fold.labels.unique()) for fold in folds]
        chance = sum(100 / n for n in ways) / len(ways) if head == "new_classes" else None
        choice, scored, gain, thin = search(config, folds, classifier, judge=judge, chance=chance)
    solve, weight = partial(choice.solve, keep=config.keep), config.text_weight
    projection = solve(pooled(folds, text_weight=weight))
    if config.bootstrap:
        certainty = bootstrap(folds, solve, text_weight=weight, n=config.bootstrap, seed=seed)
    if exact is not None:
        angles = principal_angles(projection.basis, solve(exact).basis)
        kept = share_kept(projection.basis, exact.changes)
        twins = {**angles, "intervention_energy_kept": kept}
    return Chosen(choice, projection, scored, gain, certainty, twins, thin)
