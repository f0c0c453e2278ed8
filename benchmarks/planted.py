"""Planted worlds in which CLIP-ICM's assumptions hold exactly or are violated one by one.

Features are linear in generative factors, z = M s with s = (s_inv, s_var); an intervention redraws
s_var and leaves s_inv. The directions that no intervention changes are then known: those orthogonal
to the variant columns of M.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from causalclip.icm.certainty import largest_angle
from causalclip.icm.projection import InvariantProjection
from causalclip.icm.subspace import InterventionMoments


@dataclass(frozen=True)
class World:
    """Sizes of a planted world, and how far each assumption is violated."""

    dim: int = 64
    """Number of feature dimensions D."""
    dim_inv: int = 16
    """Number of invariant factors k; the other D - k are variant."""
    n_pairs: int = 4000
    noise: float = 0.0
    """Standard deviation of independent noise on each feature vector; factors have 1."""
    leak: float = 0.0
    """How much an intervention also changes the invariant factors, violating independence."""
    moved: int | None = None
    """Number of variant factors that change; None: all. Fewer violate the rank condition."""
    confounding: float = 0.6
    """How much the first variant factors depend on the invariant ones without intervention."""
    seed: int = 0

    @property
    def mixing(self) -> np.ndarray:
        """Return the mixing matrix M (D, D), of condition number 4."""
        rng = np.random.default_rng(self.seed)
        left, right = (np.linalg.qr(rng.normal(size=(self.dim, self.dim)))[0] for _ in range(2))
        return left @ np.diag(np.geomspace(1, 1 / 4, self.dim)[rng.permutation(self.dim)]) @ right

    @property
    def span(self) -> Tensor:
        """Return an orthonormal basis (D, k) of the directions free of variant factors."""
        return torch.from_numpy(scipy.linalg.null_space(self.mixing[:, self.dim_inv :].T))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the factors before and after an intervention, (N, D) each, mean 0.1."""
        rng = np.random.default_rng((self.seed, 1))
        k = self.dim_inv
        moved = self.dim - k if self.moved is None else self.moved
        s = 0.1 + rng.normal(size=(self.n_pairs, self.dim))
        follow = min(k, self.dim - k) // 2
        s[:, k : k + follow] += self.confounding * s[:, :follow]
        s_do = s.copy()
        s_do[:, k : k + moved] = rng.permutation(s[:, k : k + moved])
        s_do[:, :k] += self.leak * rng.normal(size=(self.n_pairs, k))
        return torch.from_numpy(s), torch.from_numpy(s_do)

    def features(self) -> tuple[Tensor, Tensor]:
        """Return the features before and after an intervention, (N, D) each."""
        rng, mixing = np.random.default_rng((self.seed, 2)), torch.from_numpy(self.mixing)
        before, after = self.factors()
        noise, noise_do = (torch.from_numpy(rng.normal(size=before.shape)) for _ in range(2))
        return before @ mixing.T + self.noise * noise, after @ mixing.T + self.noise * noise_do

    def estimate(self, *, normalize: bool = False, **options: Any) -> InvariantProjection:
        """Estimate the subspace from the pairs; `options` as in `InterventionMoments.solve`."""
        moments = InterventionMoments(self.dim, normalize=normalize).update(*self.features())
        return moments.solve(self.dim_inv, **options)

    def error(self, *, normalize: bool = False, **options: Any) -> float:
        """Return the largest principal angle between the estimate and the planted span, degrees."""
        return largest_angle(self.estimate(normalize=normalize, **options).basis, self.span)

    def but(self, **changes: float | int | None) -> World:
        """Return the same world with some fields changed."""
        return replace(self, **changes)


def explained(of: Tensor, by: Tensor) -> Tensor:
    """Return R squared (S,) of the columns of `of` (N, S) in a linear regression on `by` (N, P)."""
    x = torch.cat([by, by.new_ones(len(by), 1)], dim=1)
    residual = of - x @ torch.linalg.lstsq(x, of, driver="gelsd").solution
    return 1 - residual.square().sum(0) / (of - of.mean(0)).square().sum(0)
