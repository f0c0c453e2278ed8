"""How sure an estimated invariant subspace is: a bootstrap of its angles, Davis and Kahan's bound.

Both are ours; the paper gives no interval. Angles are the largest principal angle between two
spans, in degrees: 0 for equal spans, 90 where one holds a direction orthogonal to the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from causalclip.icm.subspace import InterventionMoments, InvariantProjection

Solve = Callable[[InterventionMoments], InvariantProjection]
LEAST_IMAGES = 20  # below, resamples hold too few different images to say anything


@dataclass(frozen=True)
class Certainty:
    """Largest principal angles between the estimate and those of resampled images."""

    angles: tuple[float, ...]
    """One a resample, degrees, ascending."""

    def quantile(self, level: float) -> float:
        """The angle that a share `level` of the resamples stays below, degrees."""
        return float(np.quantile(self.angles, level))

    def __str__(self) -> str:
        return f"95 % of angles below {self.quantile(0.95):.0f} degrees"


def bootstrap(
    z: Tensor, z_do: Tensor, solve: Solve, *, normalize: bool = True, n: int = 100, seed: int = 0
) -> Certainty:
    """Estimate the subspace again from images drawn with replacement, `n` times.

    Images are drawn and not pairs, since the interventions of one image are not independent.

    Args:
        z: (N, D) features of the images.
        z_do: (N, D) or (N, R, D), features under one or R interventions of each.
        solve: the estimator, from moments to the projection.
        normalize: as in `InterventionMoments`.
        n: resamples.
        seed: of the draws.

    Raises:
        ValueError: fewer images than `LEAST_IMAGES`, or features that do not match.
    """
    if z_do.dim() == 2:
        z_do = z_do.unsqueeze(1)
    if z_do.dim() != 3 or z_do.shape[::2] != z.shape:
        raise ValueError(
            "z must have shape (N, D) and z_do (N, D) or (N, R, D), "
            f"got {tuple(z.shape)} and {tuple(z_do.shape)}"
        )
    if len(z) < LEAST_IMAGES:
        raise ValueError(f"a bootstrap needs at least {LEAST_IMAGES} images, got {len(z)}")

    def estimate(rows: Tensor) -> Tensor:
        moments = InterventionMoments(z.shape[1], normalize=normalize)
        changed = z_do[rows]
        return solve(moments.update(z[rows].unsqueeze(1).expand_as(changed), changed)).basis

    generator = torch.Generator().manual_seed(seed)
    whole = estimate(torch.arange(len(z)))
    draws = (torch.randint(len(z), (len(z),), generator=generator) for _ in range(n))
    return Certainty(tuple(sorted(largest_angle(whole, estimate(rows)) for rows in draws)))


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
