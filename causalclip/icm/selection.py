"""Choosing CLIP-ICM's estimator, strength and dimension by leaving one source domain out.

No values are published, so the whole choice is ours: moments are additive over domains, so every
cell of the grid is a sum, one eigenproblem and an accuracy; nothing is encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.icm.folds import Fold, pooled
from causalclip.icm.probe import fit_probe
from causalclip.icm.projection import Estimator, InvariantProjection, Keep
from causalclip.icm.subspace import InterventionMoments


@dataclass(frozen=True)
class Choice:
    """One cell of the grid: what `InterventionMoments.solve` needs."""

    estimator: Estimator
    strength: float
    """lambda of `difference`, eps of `generalized`."""
    dim_inv: int
    orthonormal: bool = True

    def solve(
        self, moments: InterventionMoments, *, keep: Keep = "invariant"
    ) -> InvariantProjection:
        """The projection of this cell on the given moments."""
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
    """Which held-out features (H,) were told right, a tensor of bools a fold."""

    @property
    def mean(self) -> float:
        """Mean over the held-out folds."""
        return sum(self.accuracies) / len(self.accuracies)

    def record(self) -> dict[str, Any]:
        """The cell as JSON values."""
        return {**asdict(self.choice), "accuracies": list(self.accuracies), "mean": self.mean}

    def of_folds(self, numbers: Sequence[int]) -> Scored:
        """The same cell scored on some of the folds alone."""
        accuracies = tuple(self.accuracies[i] for i in numbers)
        return Scored(self.choice, accuracies, tuple(self.right[i] for i in numbers))


def cells(
    strengths: Mapping[Estimator, Sequence[float]],
    shares: Sequence[float],
    dim: int,
    *,
    orthonormal: bool = True,
) -> list[Choice]:
    """The grid: every strength of every estimator with every dimension, in this order.

    Args:
        strengths: lambdas of `difference`, eps of `generalized`; only estimators to choose from.
        shares: dimensions of the subspace as shares of `dim`, in (0, 1].
        dim: number of feature dimensions D.
        orthonormal: as in `InterventionMoments.solve`, the same for all.
    """
    dims = sorted({max(1, round(share * dim)) for share in shares})
    return [
        Choice(estimator, strength, k, orthonormal)
        for estimator, values in strengths.items()
        for strength in values
        for k in dims
    ]


# Predicts the classes (H,) of a fold's held-out features from the training folds.
Classifier = Callable[[InvariantProjection, Sequence[Fold], Tensor], Tensor]


def leave_one_out(
    folds: Sequence[Fold],
    grid: Sequence[Choice],
    classifier: Classifier,
    *,
    keep: Keep = "invariant",
    text_weight: float = 0.5,
) -> list[Scored]:
    """Accuracy of every cell on each fold, its subspace estimated on the other folds.

    Args:
        folds: two or more.
        grid: the cells; those that differ in `dim_inv` alone share one eigenproblem.
        classifier: zero-shot or a probe, see `zeroshot_classifier` and `RidgeClassifier`.
        keep: which end of the spectrum, as in `solve`.
        text_weight: what the text pairs weigh in all, where there are both kinds.

    Raises:
        ValueError: fewer than two folds, or an empty grid.
    """
    if len(folds) < 2:
        raise ValueError(f"leaving one out needs at least two folds, got {len(folds)}")
    if not grid:
        raise ValueError("the grid must hold at least one choice, got none")
    options = {"keep": keep, "text_weight": text_weight}
    columns = [held_out(number, folds, grid, classifier, **options) for number in range(len(folds))]
    rows = zip(*columns, strict=True)
    return [
        Scored(choice, tuple(100 * right.double().mean().item() for right in row), row)
        for choice, row in zip(grid, rows, strict=True)
    ]


def held_out(
    number: int,
    folds: Sequence[Fold],
    grid: Sequence[Choice],
    classifier: Classifier,
    *,
    keep: Keep = "invariant",
    text_weight: float = 0.5,
) -> list[Tensor]:
    """Which features (H,) of fold `number` each cell tells right, a tensor of bools a cell.

    Its subspace is estimated on the other folds; arguments as in `leave_one_out`.
    """
    held = folds[number]
    rest = [fold for fold in folds if fold is not held]
    moments = pooled(rest, text_weight=text_weight)
    asked = (held.held_features, held.held_labels)
    return told_right(*asked, rest, moments, grid, classifier, keep=keep)


def best(scored: Sequence[Scored]) -> Scored:
    """The cell of the highest mean accuracy; of equal ones the widest, then the first."""
    return max(scored, key=lambda cell: (round(cell.mean, 6), cell.choice.dim_inv))


def told_right(
    features: Tensor,
    labels: Tensor,
    rest: Sequence[Fold],
    moments: InterventionMoments,
    grid: Sequence[Choice],
    classifier: Classifier,
    *,
    keep: Keep,
) -> list[Tensor]:
    """Which of the features (H, D) with labels (H,) each cell tells right, (H,) bools a cell.

    Args:
        features: of images that had no part in the folds.
        labels: their classes.
        rest: the folds that the classifier may read.
        moments: of these folds, which the subspaces are taken of.
        grid: the cells.
        classifier: as in `leave_one_out`.
        keep: which end of the spectrum, as in `solve`.
    """
    solved: dict[Choice, InvariantProjection] = {}
    right = []
    for choice in grid:
        widest = replace(choice, dim_inv=moments.dim)
        if widest not in solved:
            solved[widest] = widest.solve(moments, keep=keep)
        projection = solved[widest].first(choice.dim_inv)
        right.append(classifier(projection, rest, features) == labels)
    return right


# Classifiers


def zeroshot_classifier(text_features: Tensor, *, normalize: bool = True) -> Classifier:
    """Cosine with the class texts (K, D) in the subspace; the training folds give it nothing.

    `normalize=False` compares without norms, as in `InvariantProjection.cosine_logits`.
    """

    def classify(
        projection: InvariantProjection, _rest: Sequence[Fold], features: Tensor
    ) -> Tensor:
        logits = projection.cosine_logits(features, text_features, 1.0, normalize=normalize)
        return logits.argmax(-1)

    return classify


@dataclass(frozen=True)
class LogisticClassifier:
    """The probe itself: logistic regression fitted anew for every cell and held-out fold.

    Exact where `RidgeClassifier` stands in, and as much slower as a fit is than a k x k solve.
    """

    n_classes: int
    c: float = 0.316
    """As in `fit_probe`."""
    max_iter: int = 1000

    def __call__(
        self, projection: InvariantProjection, rest: Sequence[Fold], features: Tensor
    ) -> Tensor:
        """Classes (N,) of the features (N, D), by a probe on the folds in `rest`."""
        x = projection(torch.cat([fold.features for fold in rest]))
        y = torch.cat([fold.labels for fold in rest])
        probe = fit_probe(x, y, self.n_classes, c=self.c, max_iter=self.max_iter)
        return probe.logits(projection(features)).argmax(-1)


class RidgeClassifier:
    """Least squares on one-hot classes: a linear probe in closed form, from sums per fold.

        W = (A' X'X A + ridge tr(A' X'X A) / k I)^-1 A' X'Y,    with a constant beside A'z

    It stands in for logistic regression in the selection: the sums of a fold are taken once, and a
    cell of the grid costs one k x k solve.
    """

    def __init__(self, folds: Sequence[Fold], n_classes: int, *, ridge: float = 1e-3) -> None:
        self.ridge = ridge
        self._sums = {fold.name: _sums(fold, n_classes) for fold in folds}

    def __call__(
        self, projection: InvariantProjection, rest: Sequence[Fold], features: Tensor
    ) -> Tensor:
        """Classes (N,) of the features (N, D), by the sums of the folds in `rest`."""
        gram = sum(self._sums[fold.name][0] for fold in rest)
        cross = sum(self._sums[fold.name][1] for fold in rest)
        lift = torch.block_diag(projection.basis.to(gram), torch.ones(1, 1).to(gram))
        small = lift.T @ gram @ lift
        penalty = self.ridge * small.diagonal()[:-1].mean()
        small.diagonal()[:-1].add_(penalty)  # the constant is not shrunk
        weights = torch.linalg.lstsq(small, lift.T @ cross).solution
        return (projection(features.to(gram)) @ weights[:-1] + weights[-1]).argmax(-1)


def _sums(fold: Fold, n_classes: int) -> tuple[Tensor, Tensor]:
    """X'X (D + 1, D + 1) and X'Y (D + 1, K) of a fold, X with a last column of ones."""
    x = fold.features.double()
    x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    y = F.one_hot(fold.labels.long(), n_classes).to(x)
    return x.T @ x, x.T @ y
