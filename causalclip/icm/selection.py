"""Choosing CLIP-ICM's estimator, strength and dimension by leaving one source domain out.

No values are published, so the whole choice is ours: moments are additive over domains, so every
cell of the grid is a sum, one eigenproblem and an accuracy; nothing is encoded again.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from causalclip.icm.subspace import (
    Estimator,
    InterventionMoments,
    InvariantProjection,
    Keep,
)


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
class Fold:
    """What one source domain (or one kind of intervention) contributes."""

    name: str
    moments: InterventionMoments | None
    """Of this fold's image pairs; None where only text pairs are used."""
    texts: InterventionMoments | None
    """Of its text pairs; every fold may share those that are about no image."""
    features: Tensor
    """Features (N, D) that a classifier may be fitted on while another fold is held out."""
    labels: Tensor
    """Their classes (N,)."""
    held_features: Tensor
    """Features (H, D) that are classified when this fold is held out."""
    held_labels: Tensor
    """Their classes (H,)."""


@dataclass(frozen=True)
class Scored:
    """A cell of the grid with its accuracy on each held-out fold, per cent."""

    choice: Choice
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the held-out folds."""
        return sum(self.accuracies) / len(self.accuracies)

    def record(self) -> dict:
        """The cell as JSON values."""
        return {**asdict(self.choice), "accuracies": list(self.accuracies), "mean": self.mean}


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
    columns = []
    for held in folds:
        rest = [fold for fold in folds if fold is not held]
        moments = pooled(rest, text_weight=text_weight)
        columns.append(_accuracies(held, rest, moments, grid, classifier, keep))
    rows = zip(*columns, strict=True)
    return [Scored(choice, tuple(row)) for choice, row in zip(grid, rows, strict=True)]


def best(scored: Sequence[Scored]) -> Scored:
    """The cell of the highest mean accuracy; of equal ones the widest, then the first."""
    return max(scored, key=lambda cell: (round(cell.mean, 6), cell.choice.dim_inv))


def pooled(folds: Sequence[Fold], *, text_weight: float = 0.5) -> InterventionMoments:
    """The moments of all folds together, their text pairs weighing `text_weight` in all.

    Raises:
        ValueError: no pairs at all, or a weight outside (0, 1) where both kinds are there.
    """
    images = _sum([fold.moments for fold in folds if fold.moments is not None])
    texts = _sum([fold.texts for fold in folds if fold.texts is not None])
    if images is None or texts is None:
        if images is None and texts is None:
            raise ValueError("folds must hold image or text pairs, got neither")
        return images if texts is None else texts
    if not 0 < text_weight < 1:
        raise ValueError(f"text_weight must be in (0, 1), got {text_weight}")
    return images.reweighted(1 - text_weight) + texts.reweighted(text_weight)


def _sum(moments: Sequence[InterventionMoments]) -> InterventionMoments | None:
    return sum(moments[1:], start=moments[0]) if moments else None


def _accuracies(
    held: Fold,
    rest: Sequence[Fold],
    moments: InterventionMoments,
    grid: Sequence[Choice],
    classifier: Classifier,
    keep: Keep,
) -> list[float]:
    solved: dict[Choice, InvariantProjection] = {}
    accuracies = []
    for choice in grid:
        widest = replace(choice, dim_inv=moments.dim)
        if widest not in solved:
            solved[widest] = widest.solve(moments, keep=keep)
        projection = solved[widest].first(choice.dim_inv)
        predicted = classifier(projection, rest, held.held_features)
        accuracies.append(100 * (predicted == held.held_labels).double().mean().item())
    return accuracies


# Classifiers


def zeroshot_classifier(text_features: Tensor, *, normalize: bool = True) -> Classifier:
    """Cosine with the class texts (K, D) in the subspace; the training folds give it nothing.

    `normalize=False` compares without norms, as in `InvariantProjection.cosine_logits`.
    """

    def classify(projection: InvariantProjection, rest: Sequence[Fold], features: Tensor) -> Tensor:
        logits = projection.cosine_logits(features, text_features, 1.0, normalize=normalize)
        return logits.argmax(-1)

    return classify


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
    y = torch.nn.functional.one_hot(fold.labels.long(), n_classes).to(x)
    return x.T @ x, x.T @ y
