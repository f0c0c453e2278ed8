"""Folds of planted features, the input of CLIP-ICM's searches."""

from __future__ import annotations

import torch

from causalclip.icm.folds import Fold
from causalclip.icm.subspace import InterventionMoments


def fold_of(name, z, z_do, labels, *, normalize=True) -> Fold:
    """Return a fold of image pairs (N, D) and labels (N,), arrays or tensors, all held out."""
    z, z_do, labels = map(torch.as_tensor, (z, z_do, labels))
    moments = InterventionMoments(z.shape[1], normalize=normalize).update(z, z_do)
    return Fold(name, moments, None, z.float(), labels, z.float())
