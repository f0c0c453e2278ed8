"""Folds of planted features, as the searches of CLIP-ICM take them."""

from __future__ import annotations

import torch

from causalclip.icm.folds import Fold
from causalclip.icm.subspace import InterventionMoments


def fold_of(name, z, z_do, labels, *, normalize=True) -> Fold:
    """Image pairs (N, D), NumPy's or torch's, of classes (N,); held out as they are."""
    z, z_do, labels = map(torch.as_tensor, (z, z_do, labels))
    moments = InterventionMoments(z.shape[1], normalize=normalize).update(z, z_do)
    return Fold(name, moments, None, z.float(), labels, z.float())
