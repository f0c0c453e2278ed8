"""Split conformal prediction: class sets that contain the true class with a chosen probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
ScoreFunction = Callable[[Array, Array], Array]
"""Maps probabilities (N, K) and draws (N,) to scores (N, K); larger for less plausible classes."""


def lac_scores(probabilities: Array) -> Array:
    """Return 1 - p_k, (N, K): the smallest sets on average (Sadinle et al., JASA 2019)."""
    return 1 - probabilities


def aps_scores(probabilities: Array, draws: Array) -> Array:
    """Return sum_{j before k} p_j + u p_k, (N, K), classes in descending order of p.

    Randomised adaptive prediction sets (Romano et al., NeurIPS 2020): u (N,) is uniform in [0, 1).
    """
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, axis=-1)
    scores = np.empty_like(ordered)
    before = ordered.cumsum(-1) - ordered
    np.put_along_axis(scores, order, before + draws[:, None] * ordered, axis=-1)
    return scores


SCORES: dict[str, ScoreFunction] = {"lac": lambda p, _: lac_scores(p), "aps": aps_scores}


def conformal_threshold(scores: ArrayLike, alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest of n calibration scores (n,), else infinity.

    A new score that is exchangeable with them is at most this threshold with probability
    1 - alpha or more. The threshold is infinity if n is too small.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    # round() first: a rounding error above a whole number would raise the rank by one.
    rank = math.ceil(round((len(ordered) + 1) * (1 - alpha), 9))
    return float(ordered[rank - 1]) if rank <= len(ordered) else math.inf


def conformal_metrics(
    calibration: tuple[ArrayLike | Tensor, ArrayLike | Tensor],
    test: tuple[ArrayLike | Tensor, ArrayLike | Tensor],
    *,
    alpha: float,
    seed: int,
) -> dict[str, float]:
    """Return coverage in per cent and mean size of the sets of each of `SCORES` on the test images.

    `conformal_level` is the level, 100 (1 - alpha), that the coverage should reach.

    Args:
        calibration: class probabilities (n, K) and labels (n,) of images that were not trained on.
        test: class probabilities (N, K) and labels (N,) of the test images.
        alpha: the share of sets that may miss the true class.
        seed: seed of APS's random draws.
    """
    rng, found = np.random.default_rng(seed), {"conformal_level": 100 * (1 - alpha)}
    (p, y), (p_test, y_test) = (
        (np.asarray(probabilities, dtype=np.float64), np.asarray(labels))
        for probabilities, labels in (calibration, test)
    )
    for name, scores_of in SCORES.items():
        scores = scores_of(p, rng.random(len(p)))[np.arange(len(y)), y]
        sets = scores_of(p_test, rng.random(len(p_test))) <= conformal_threshold(scores, alpha)
        found[f"{name}_coverage"] = 100 * float(sets[np.arange(len(y_test)), y_test].mean())
        found[f"{name}_size"] = float(sets.sum(-1).mean())
    return found
