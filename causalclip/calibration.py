"""Post-hoc calibration of softmax classifiers: the rivals of CDC's fitted discount.

Temperature scaling (Guo et al., ICML 2017) and distance-aware calibration, DAC (Wang et al.,
"Open-Vocabulary Calibration for Fine-tuned CLIP", ICML 2024, arXiv 2402.04655). Neither changes the
predicted class.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

BASE_RADIUS = 0.05  # [code of DAC] a class nearer than this to a trained one is a trained one
TEMPERATURES = (0.01, 100.0)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T > 0 that minimises the negative log-likelihood of softmax(logits / T).

    Args:
        logits: (N, K) of a validation split.
        labels: (N,) class indices.

    Raises:
        ValueError: shapes that do not match, no sample, logits that are not finite.
    """
    from scipy.optimize import minimize_scalar  # everything else here needs torch alone

    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            "logits must have shape (samples, classes) and labels (samples,) with at least one "
            f"sample, got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if not logits.isfinite().all():
        raise ValueError("logits must be finite to fit a temperature, got inf or NaN")
    exact, targets = logits.detach().double(), labels.long()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(exact / math.exp(log_temperature), targets).item()

    # The loss is convex in 1 / T, hence has one minimum in log T.
    bounds = tuple(math.log(end) for end in TEMPERATURES)
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def class_factors(
    base_zeroshot: Tensor, zeroshot: Tensor, base_tuned: Tensor, tuned: Tensor, *, neighbours: int
) -> Tensor:
    """DAC's factor gamma_k of each class (K,): 1 for a trained one, else how far tuning moved it.

        gamma_k = exp(-d_k) / exp(-d0_k)

    d_k is the mean Euclidean distance of the tuned text feature of class k to its `neighbours`
    nearest among the trained classes, d0_k the same under zero-shot CLIP: where tuning has pushed a
    class away from those that were trained, its confidence is lowered.

    Args:
        base_zeroshot: (K0, E) unit text features of the trained classes before tuning.
        zeroshot: (K, E) of the classes to predict, before tuning.
        base_tuned: (K0, E) of the trained classes after tuning.
        tuned: (K, E) of the classes to predict, after tuning.
        neighbours: how many trained classes are looked at.

    Raises:
        ValueError: neighbours outside [1, K0], or shapes that do not match.
    """
    if base_zeroshot.shape != base_tuned.shape or zeroshot.shape != tuned.shape:
        raise ValueError(
            "zero-shot and tuned text features must have equal shapes, got "
            f"{tuple(base_zeroshot.shape)} and {tuple(base_tuned.shape)}, "
            f"{tuple(zeroshot.shape)} and {tuple(tuned.shape)}"
        )
    if not 1 <= neighbours <= len(base_tuned):
        raise ValueError(
            f"neighbours must be in [1, {len(base_tuned)}], the trained classes, got {neighbours}"
        )
    before = _nearest(zeroshot, base_zeroshot, neighbours)
    after = _nearest(tuned, base_tuned, neighbours)
    factors = (before.mean(-1) - after.mean(-1)).exp()
    return torch.where(after[:, 0] < BASE_RADIUS, torch.ones_like(factors), factors)


def distance_aware(logits: Tensor, factors: Tensor) -> Tensor:
    """DAC's logits (..., K): all of a sample's logits times the factor of its predicted class."""
    return logits * factors.to(logits)[logits.argmax(-1, keepdim=True)]


def _nearest(features: Tensor, others: Tensor, count: int) -> Tensor:
    """Distances (K, count) to the nearest others, ascending."""
    # The exact form: near 0 the expanded square loses half of the digits.
    distances = torch.cdist(
        features.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distances.sort(dim=-1).values[:, :count]
