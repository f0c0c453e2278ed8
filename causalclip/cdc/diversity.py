"""How much the members of an ensemble differ, in what they get wrong and in their texts.

Kuncheva and Whitaker, "Measures of Diversity in Classifier Ensembles", Machine Learning 51 (2003).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pair_diversity(correct: Tensor) -> dict[str, float]:
    """Return diversity measures of M members, each the mean over the M (M - 1) / 2 pairs.

    With a, b, c, d the images that both, the first alone, the second alone, none get right:

        disagreement       (b + c) / N                    0 for equal members
        q                  (a d - b c) / (a d + b c)      1 for equal ones, 0 for independent ones
        error_correlation  of the errors as 0 and 1       1 for equal ones, 0 for independent ones

    `correct` (N, M) tells which images each member gets right. A pair for which q or the
    correlation is 0 / 0 is left out; NaN if all are.

    Raises:
        ValueError: fewer than two members, or no image.
    """
    if correct.ndim != 2 or correct.shape[1] < 2 or not len(correct):
        raise ValueError(
            "diversity needs images (N, M) of at least two members, got shape "
            f"{tuple(correct.shape)}"
        )
    right, n = correct.double(), len(correct)
    i, j = torch.triu_indices(right.shape[1], right.shape[1], offset=1)
    both, first, second = (right.T @ right)[i, j], right.sum(0)[i], right.sum(0)[j]
    b, c = first - both, second - both
    d = n - both - b - c
    q = (both * d - b * c) / (both * d + b * c)
    spread = (first * (n - first) * second * (n - second)).sqrt()
    correlation = (both * d - b * c) / spread
    measures = {"disagreement": (b + c) / n, "q": q, "error_correlation": correlation}
    return {name: values.nanmean().item() for name, values in measures.items()}


def residual_directions(features: Tensor, reference: Tensor) -> Tensor:
    """Return unit features (..., D) minus a unit reference of a shape that broadcasts to it.

    What the templates' texts t^m hold beyond the hand-crafted t^0, or images beyond CLIP's own.
    """
    return F.normalize(features, dim=-1) - F.normalize(reference, dim=-1)
