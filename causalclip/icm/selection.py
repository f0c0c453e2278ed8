"""Accuracy of CLIP-ICM's estimators, strengths and dimensions on source domains left out in turn.

No values are published, so the whole choice is ours. Moments are additive over domains: a cell of
the grid costs a sum, one eigenproblem and an accuracy, and nothing is encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.icm.config import ICMConfig
from causalclip.icm.fitted import fit_probe
from causalclip.icm.folds import Fold, pooled
from causalclip.icm.projection import Estimator, InvariantProjection, Keep
from causalclip.icm.subspace import InterventionMoments


@dataclass(frozen=True)
class Choice:
    """One cell of the grid: the arguments of `InterventionMoments.solve`."""

    estimator: Estimator
    strength: float
    """lambda of `difference`, eps of `generalized`."""
    dim_inv: int
    orthonormal: bool = True

    def solve(
        self, moments: InterventionMoments, *, keep: Keep = "invariant"
    ) -> InvariantProjection:
        """Return the projection of this cell on the given moments."""
        name = "lam" if self.estimator == "difference" else "eps"
        return moments.solve(
            self.dim_inv,
            estimator=self.estimator,
            keep=keep,
            orthonormal=self.orthonormal,
            **{name: self.strength},
        )


@dataclass(frozen=True)
class Scored:
    """A cell of the grid with its accuracy on each held-out fold, per cent."""

    choice: Choice
    accuracies: tuple[float, ...]
    right: tuple[Tensor, ...] = field(default=(), compare=False, repr=False)
    """Which held-out features (N,) were classified correctly, one tensor of bools per fold."""

    @property
    def mean(self) -> float:
        """Mean accuracy over the held-out folds."""
        return sum(self.accuracies) / len(self.accuracies)

    @property
    def worst(self) -> float:
        """Lowest accuracy over the held-out folds."""
        return min(self.accuracies)

    def record(self) -> dict[str, Any]:
        """Return the cell as JSON values."""
        scores = {"accuracies": list(self.accuracies), "mean": self.mean, "worst": self.worst}
        return {**asdict(self.choice), **scores}

    def of_folds(self, numbers: Sequence[int]) -> Scored:
        """Return the same cell with its scores on some of the folds only."""
        accuracies = tuple(self.accuracies[i] for i in numbers)
        return Scored(self.choice, accuracies, tuple(self.right[i] for i in numbers))


# Predicts the classes (H,) of features (H, D) from the training folds.
Classifier = Callable[[InvariantProjection, Sequence[Fold], Tensor], Tensor]


def leave_one_out(
    config: ICMConfig, folds: Sequence[Fold], grid: Sequence[Choice], classifier: Classifier
) -> list[Scored]:
    """Return the accuracy of every cell on each fold, its subspace estimated on the other folds.

    Raises:
        ValueError: fewer than two folds, or an empty grid.
    """
    if len(folds) < 2:
        raise ValueError(f"leaving one out needs at least two folds, got {len(folds)}")
    if not grid:
        raise ValueError("the grid must hold at least one choice, got none")
    columns = [held_out(config, number, folds, grid, classifier) for number in range(len(folds))]
    return [
        Scored(choice, tuple(map(per_cent, row)), row)
        for choice, row in zip(grid, zip(*columns, strict=True), strict=True)
    ]


def held_out(
    config: ICMConfig,
    number: int,
    folds: Sequence[Fold],
    grid: Sequence[Choice],
    classifier: Classifier,
) -> list[Tensor]:
    """Return which features (N,) of fold `number` each cell classifies correctly, as bools.

    The subspaces and the classifier use the other folds only.
    """
    held = folds[number]
    rest = [fold for fold in folds if fold is not held]
    return correct_mask(config, held.held_features, held.labels, rest, grid, classifier)


def correct_mask(
    config: ICMConfig,
    features: Tensor,
    labels: Tensor,
    rest: Sequence[Fold],
    grid: Sequence[Choice],
    classifier: Classifier,
) -> list[Tensor]:
    """Return which of the features (H, D) with labels (H,) each cell classifies correctly, (H,).

    The subspaces and the classifier use the folds in `rest` only. Cells that differ only in
    `dim_inv` share one eigenproblem.
    """
    moments = pooled(rest, text_weight=config.text_weight)
    solved: dict[Choice, InvariantProjection] = {}
    right = []
    for choice in grid:
        widest = replace(choice, dim_inv=moments.dim)
        if widest not in solved:
            solved[widest] = widest.solve(moments, keep=config.keep)
        projection = solved[widest].first(choice.dim_inv)
        right.append(classifier(projection, rest, features) == labels)
    return right


def per_cent(right: Tensor) -> float:
    """Return the share of True among bools (N,), per cent."""
    return 100 * right.double().mean().item()


def best(scored: Sequence[Scored]) -> Scored:
    """Return the cell of the highest mean accuracy; of equal ones the widest, then the first."""
    return max(scored, key=lambda cell: (round(cell.mean, 6), cell.choice.dim_inv))


# Classifiers


def zeroshot_classifier(
    text_features: Tensor, *, normalize: bool = True, new_only: bool = False
) -> Classifier:
    """Classify by the cosine with the class texts (K, D) in the subspace.

    `normalize=False` compares without norms, as in `InvariantProjection.cosine_logits`. With
    `new_only`, predict only classes that no fold in `rest` has.
    """

    def classify(projection: InvariantProjection, rest: Sequence[Fold], features: Tensor) -> Tensor:
        logits = projection.cosine_logits(features, text_features, 1.0, normalize=normalize)
        if new_only:
            seen = torch.cat([fold.labels for fold in rest]).unique()
            logits = logits.index_fill(-1, seen, -torch.inf)
        return logits.argmax(-1)

    return classify


def logistic_classifier(n_classes: int, *, c: float = 0.316, max_iter: int = 1000) -> Classifier:
    """Classify by a probe that is fitted for every cell and fold; options as in `fit_probe`."""

    def classify(projection: InvariantProjection, rest: Sequence[Fold], features: Tensor) -> Tensor:
        x = projection(torch.cat([fold.features for fold in rest]))
        y = torch.cat([fold.labels for fold in rest])
        probe = fit_probe(x, y, n_classes, c=c, max_iter=max_iter)
        return probe.logits(projection(features)).argmax(-1)

    return classify


class RidgeClassifier:
    """Least squares on one-hot classes: a linear probe in closed form, from sums per fold.

        W = (A' X'X A + ridge tr(A' X'X A) / k I)^-1 A' X'Y,    with a constant appended to A'z

    It replaces logistic regression in the selection, since it is cheap: the sums of a fold are
    computed once, and a cell of the grid costs one k x k solve.
    """

    def __init__(self, folds: Sequence[Fold], n_classes: int, *, ridge: float = 1e-3) -> None:
        self.ridge = ridge
        self._sums = {fold.name: _sums(fold, n_classes) for fold in folds}

    def __call__(
        self, projection: InvariantProjection, rest: Sequence[Fold], features: Tensor
    ) -> Tensor:
        """Return the classes (N,) of features (N, D), from the sums of the folds in `rest`."""
        gram = sum(self._sums[fold.name][0] for fold in rest)
        cross = sum(self._sums[fold.name][1] for fold in rest)
        lift = torch.block_diag(projection.basis.to(gram), torch.ones(1, 1).to(gram))
        small = lift.T @ gram @ lift
        penalty = self.ridge * small.diagonal()[:-1].mean()
        small.diagonal()[:-1].add_(penalty)  # the constant is not shrunk
        weights = torch.linalg.lstsq(small, lift.T @ cross).solution
        return (projection(features.to(gram)) @ weights[:-1] + weights[-1]).argmax(-1)


def _sums(fold: Fold, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return X'X (D + 1, D + 1) and X'Y (D + 1, K) of a fold, X with a last column of ones."""
    x = fold.features.double()
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    y = F.one_hot(fold.labels.long(), n_classes).to(x)
    return x.T @ x, x.T @ y
