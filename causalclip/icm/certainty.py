"""How sure an estimated invariant subspace is: a bootstrap of its angles, Davis and Kahan's bound.

Both are ours; the paper gives no interval. Angles are the largest principal angle between two
spans, in degrees: 0 for equal spans, 90 where one holds a direction orthogonal to the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from causalclip.icm.folds import Fold, pooled
from causalclip.icm.subspace import InterventionMoments, InvariantProjection

Solve = Callable[[InterventionMoments], InvariantProjection]
LEAST_IMAGES = 20  # below, resamples hold too few different images to say anything
UNDETERMINED = 45.0  # degrees; two spans further apart share less of a direction than they do not


@dataclass(frozen=True)
class Certainty:
    """Largest principal angles between the estimate and those of resampled images."""

    angles: tuple[float, ...]
    """One a resample, degrees, ascending."""
    gap: float | None = None
    """Of the eigenvalues at the kept dimension; None where all dimensions are kept."""
    bound: float | None = None
    """Davis and Kahan's on the angle, degrees, for the 95 % quantile of the resamples'
    perturbation; None where the theorem is not about this eigenproblem."""

    def quantile(self, level: float) -> float:
        """The angle that a share `level` of the resamples stays below, degrees."""
        return float(np.quantile(self.angles, level))

    @property
    def determined(self) -> bool:
        """Whether at least half of the resamples stay within `UNDETERMINED` degrees."""
        return self.quantile(0.5) <= UNDETERMINED

    def record(self) -> dict[str, float | int | bool | None]:
        """The certainty as JSON values."""
        return {
            "resamples": len(self.angles),
            "angle_50": self.quantile(0.5),
            "angle_95": self.quantile(0.95),
            "gap": self.gap,
            "bound": self.bound,
            "determined": self.determined,
        }

    def __str__(self) -> str:
        return f"95 % of angles below {self.quantile(0.95):.0f} degrees"


def check_images(n_images: int) -> None:
    """Refuse a bootstrap of too few images.

    Raises:
        ValueError: fewer than `LEAST_IMAGES`.
    """
    if n_images < LEAST_IMAGES:
        raise ValueError(f"a bootstrap needs at least {LEAST_IMAGES} images, got {n_images}")


def bootstrap(
    folds: Sequence[Fold], solve: Solve, *, text_weight: float = 0.5, n: int = 100, seed: int = 0
) -> Certainty:
    """Estimate the subspace again from images drawn with replacement, each fold's from its own.

    Images are drawn and not pairs, since the interventions of one image are not independent. Pairs
    of texts stay as they are: they are not a sample of anything.

    Args:
        folds: with `intervened`, what their moments were taken of.
        solve: the estimator, from moments to the projection.
        text_weight: as in `pooled`.
        n: resamples; each costs the moments of all pairs and one eigenproblem.
        seed: of the draws.

    Raises:
        ValueError: fewer images than `LEAST_IMAGES`, or folds without image pairs.
    """
    intervened = [fold.intervened for fold in folds if fold.intervened is not None]
    if missing := [fold.name for fold in folds if fold.intervened is None]:
        raise ValueError(f"a bootstrap needs image pairs, {', '.join(missing)} has none")
    check_images(sum(len(fold.features) for fold in folds))
    rng = np.random.default_rng(seed)

    def moments() -> InterventionMoments:
        drawn = [
            replace(fold, moments=images.moments(_drawn(len(fold.features), rng)))
            for fold, images in zip(folds, intervened, strict=True)
        ]
        return pooled(drawn, text_weight=text_weight)

    whole = pooled(folds, text_weight=text_weight)
    return resampled(whole, (moments() for _ in range(n)), solve)


def resampled(
    whole: InterventionMoments, draws: Iterable[InterventionMoments], solve: Solve
) -> Certainty:
    """How far the moments of resamples turn what `solve` makes of the whole sample's.

    The bound is of the difference estimator's matrix M = E[zz'] - lambda E[dd'], whose perturbation
    is the spectral norm of M* - M. The generalized problem has its eigenvectors in other
    coordinates, of which the theorem says nothing.
    """
    found = solve(whole)
    angles, perturbations = [], []
    for moments in draws:
        angles.append(largest_angle(found.basis, solve(moments).basis))
        shift = _matrix(moments, found) - _matrix(whole, found)
        perturbations.append(torch.linalg.matrix_norm(shift, ord=2).item())
    gap, bound = _gap(found), None
    if gap is not None and found.settings.estimator == "difference":
        bound = davis_kahan(gap, float(np.quantile(perturbations, 0.95)))
    return Certainty(tuple(sorted(angles)), gap, bound)


def _drawn(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(n, size=n)


def _matrix(moments: InterventionMoments, found: InvariantProjection) -> Tensor:
    return moments.features - found.settings.strength * moments.changes


def _gap(found: InvariantProjection) -> float | None:
    k = found.dim_inv
    if k == len(found.spectrum):
        return None
    return abs(found.spectrum[k - 1] - found.spectrum[k]).item()


def largest_angle(basis: Tensor, other: Tensor) -> float:
    """Largest principal angle between the spans of two bases (D, k), degrees."""
    theta = subspace_angles(basis.cpu().double().numpy(), other.cpu().double().numpy())
    return float(np.degrees(theta.max()))


def davis_kahan(gap: float, perturbation: float) -> float:
    """Upper bound on the angle by which a symmetric perturbation turns an eigenspace, degrees.

        sin(theta) <= |E| / (gap - |E|)

    The sin-theta theorem (Davis and Kahan, 1970), with Weyl's inequality for the perturbed
    eigenvalues. 90 where it says nothing: there the subspace is not determined.

    Args:
        gap: distance of the smallest kept eigenvalue from the largest left out.
        perturbation: |E|, the spectral norm of the perturbation.

    Raises:
        ValueError: a negative or infinite number.
    """
    for name, value in (("gap", gap), ("perturbation", perturbation)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    left = gap - perturbation
    return math.degrees(math.asin(perturbation / left)) if perturbation < left else 90.0
