"""How far an estimated subspace is from the one that exact interventional twins give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from causalclip.icm.fitted import Chosen
from causalclip.icm.groups import Group
from causalclip.icm.pairs import EncodeImages, Twins, image_moments
from causalclip.icm.subspace import InterventionMoments


def exact_moments(
    groups: Sequence[Group], encode: EncodeImages, twins: Twins, *, dim: int, normalize: bool = True
) -> InterventionMoments:
    """Moments of all images with their exact twins, in `dim` dimensions.

    Raises:
        ValueError: features that are NaN, infinite, or zero where they are to be normalised.
    """
    exact = InterventionMoments(dim, normalize=normalize)
    for group in groups:
        features = encode(group.paths, desc=group.name)
        changed = twins.changed(group)
        exact.merge(image_moments(features, changed, group.paths, normalize=normalize))
    return exact


def compared(found: Chosen, exact: InterventionMoments) -> dict[str, float]:
    """Angles to what the same cell of the grid gives on exact twins, and how much change is kept.

    Raises:
        ValueError: fewer twins than dimensions.
    """
    basis = found.projection.basis
    twins = found.choice.solve(exact, keep=found.projection.settings.keep)
    change = kept(basis, exact.changes)
    return {**angles(basis, twins.basis), "intervention_energy_kept": change}


def compared_all(
    chosen: Mapping[str, Chosen], exact: InterventionMoments
) -> dict[str, dict[str, float]]:
    """`compared` for the subspace of every reading; none where the twins are too few, and so said.

    Raises:
        ValueError: as `compared`.
    """
    if exact.n_pairs < exact.dim:
        print(f"{exact.n_pairs} exact twins are too few to compare {exact.dim} dimensions with")
        return {}
    return {head: compared(found, exact) for head, found in chosen.items()}


def angles(basis: Tensor, other: Tensor) -> dict[str, float]:
    """Principal angles in degrees between the spans of (D, k) and (D, j).

    `overlap` is the mean squared cosine; two random spans have k / D of it (`chance`).
    """
    theta = subspace_angles(basis.cpu().double().numpy(), other.cpu().double().numpy())
    return {
        "largest_angle": float(np.degrees(theta.max())),
        "mean_angle": float(np.degrees(theta.mean())),
        "overlap": float(np.square(np.cos(theta)).mean()),
        "chance": basis.shape[1] / basis.shape[0],
    }


def kept(basis: Tensor, moment: Tensor) -> float:
    """Share of tr(moment), of shape (D, D), inside the span of the basis (D, k)."""
    span = torch.linalg.qr(basis.to(moment)).Q
    return float((span * (moment @ span)).sum() / moment.trace())
