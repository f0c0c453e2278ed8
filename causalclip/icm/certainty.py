"""How certain an estimated subspace is: a bootstrap, a bound, angles to another estimate.

The bootstrap and Davis and Kahan's bound are ours; the paper gives no interval. Angles are the
principal angles of two spans, in degrees. The largest is 0 for equal spans, and 90 if one span
contains a direction orthogonal to the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # scipy.linalg is loaded at its first use
import torch
from torch import Tensor

from causalclip.icm.folds import Fold, pooled
from causalclip.icm.subspace import InterventionMoments, InvariantProjection

Solve = Callable[[InterventionMoments], InvariantProjection]
UNDETERMINED = 45.0  # degrees; above it, less than half (cos^2) of a direction is in the other span


@dataclass(frozen=True)
class Certainty:
    """Largest principal angles between the estimate and the estimates from resampled images."""

    angles: tuple[float, ...]
    """One angle per resample, degrees, ascending."""
    gap: float | None = None
    """Distance of the last kept eigenvalue from the next one; None if all dimensions are kept."""
    bound: float | None = None
    """Davis and Kahan's bound on the angle, degrees, for the 95 % quantile of the resamples'
    perturbations; None if the theorem does not apply."""

    def quantile(self, level: float) -> float:
        """Return the angle, degrees, that a share `level` of the resamples does not exceed."""
        return float(np.quantile(self.angles, level))

    @property
    def determined(self) -> bool:
        """Whether at least half of the resamples stay within `UNDETERMINED` degrees."""
        return self.quantile(0.5) <= UNDETERMINED

    def record(self) -> dict[str, float | int | bool | None]:
        """Return the certainty as JSON values."""
        return {
            "resamples": len(self.angles),
            "angle_50": self.quantile(0.5),
            "angle_95": self.quantile(0.95),
            "gap": self.gap,
            "bound": self.bound,
            "determined": self.determined,
        }


def bootstrap(
    folds: Sequence[Fold], solve: Solve, *, text_weight: float = 0.5, n: int = 100, seed: int = 0
) -> Certainty:
    """Estimate the subspace again, `n` times, from images drawn with replacement in each fold.

    Images are drawn, not pairs, since the interventions of one image are not independent. Text
    pairs are not a sample and stay the same. The bound is for the matrix M = E[zz'] - lambda E[dd']
    of the difference estimator and the spectral norm of M* - M, with M* of a resample. It does not
    apply to the generalized problem, whose eigenvectors are in other coordinates. Each resample
    costs the moments of all pairs and one eigenproblem.

    Raises:
        ValueError: folds without image pairs.
    """
    intervened = [fold.intervened for fold in folds if fold.intervened is not None]
    if missing := [fold.name for fold in folds if fold.intervened is None]:
        raise ValueError(f"a bootstrap needs image pairs, {', '.join(missing)} has none")
    sizes = [len(fold.features) for fold in folds]
    rng = np.random.default_rng(seed)
    whole = pooled(folds, text_weight=text_weight)
    estimate = solve(whole)
    angles, perturbations = [], []
    for _ in range(n):
        drawn = [
            replace(fold, moments=images.moments(rng.integers(size, size=size)))
            for fold, images, size in zip(folds, intervened, sizes, strict=True)
        ]
        moments = pooled(drawn, text_weight=text_weight)
        angles.append(largest_angle(estimate.basis, solve(moments).basis))
        shift = _matrix(moments, estimate) - _matrix(whole, estimate)
        perturbations.append(torch.linalg.matrix_norm(shift, ord=2).item())
    gap, bound, k = None, None, estimate.dim_inv
    if k < len(estimate.spectrum):
        gap = abs(estimate.spectrum[k - 1] - estimate.spectrum[k]).item()
        if estimate.settings.estimator == "difference":
            bound = davis_kahan(gap, float(np.quantile(perturbations, 0.95)))
    return Certainty(tuple(sorted(angles)), gap, bound)


def _matrix(moments: InterventionMoments, estimate: InvariantProjection) -> Tensor:
    return moments.features - estimate.settings.strength * moments.changes


def davis_kahan(gap: float, perturbation: float) -> float:
    """Bound the angle by which a symmetric perturbation turns an eigenspace, degrees.

        sin(theta) <= |E| / (gap - |E|)

    The sin-theta theorem (Davis and Kahan, 1970), with Weyl's inequality for the perturbed
    eigenvalues. Return 90 if it gives no bound. `gap` >= 0 is the distance of the smallest kept
    eigenvalue from the largest one left out; `perturbation` is the spectral norm |E|.
    """
    left = gap - perturbation
    return math.degrees(math.asin(perturbation / left)) if perturbation < left else 90.0


def largest_angle(basis: Tensor, other: Tensor) -> float:
    """Return the largest principal angle between the spans of two bases (D, k), degrees."""
    return principal_angles(basis, other)["largest_angle"]


def principal_angles(basis: Tensor, other: Tensor) -> dict[str, float]:
    """Return principal angles in degrees between the spans of (D, k) and (D, j).

    `overlap` is the mean squared cosine; `chance` is its mean k / D over random spans, for j <= k.
    """
    theta = scipy.linalg.subspace_angles(basis.cpu().double().numpy(), other.cpu().double().numpy())
    return {
        "largest_angle": float(np.degrees(theta.max())),
        "mean_angle": float(np.degrees(theta.mean())),
        "overlap": float(np.square(np.cos(theta)).mean()),
        "chance": basis.shape[1] / basis.shape[0],
    }


def share_kept(basis: Tensor, moment: Tensor) -> float:
    """Return the share of tr(moment), of shape (D, D), inside the span of the basis (D, k)."""
    span = torch.linalg.qr(basis.to(moment)).Q
    return float((span * (moment @ span)).sum() / moment.trace())
