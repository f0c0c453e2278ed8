"""The numbers behind the figures of a run: calibration, risk, confusion, groups of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalclip.metrics import N_BINS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy of the bins that hold an image, ascending."""

    confidence: Array
    """(B,) mean probability of the predicted class."""
    accuracy: Array
    """(B,) share of right predictions."""


def reliability(
    probabilities: NDArray, labels: NDArray[np.integer], *, n_bins: int = N_BINS
) -> Reliability:
    """The reliability diagram of probabilities (N, K) for labels (N,): scikit-learn's curve.

    Of the predicted class (Guo et al., ICML 2017), in equal bins from 0 to 1.
    """
    from sklearn.calibration import calibration_curve

    right = probabilities.argmax(-1) == labels
    confidence = probabilities.max(-1).astype(np.float64).clip(0, 1)
    accuracy, mean = calibration_curve(right.astype(int), confidence, n_bins=n_bins, pos_label=1)
    return Reliability(mean, accuracy)


def thinned(x: Array, y: Array, *, points: int = 200) -> tuple[Array, Array]:
    """At most `points` of a curve's points (N,), evenly spread, the last one among them."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(points, len(x))).round().astype(int))
    return x[keep], y[keep]


def confusion(
    labels: NDArray[np.integer], predicted: NDArray[np.integer], *, classes: int
) -> NDArray[np.int64]:
    """How many images (K, K) of each class (rows) were taken for each (columns): scikit-learn's."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predicted, labels=np.arange(classes))


@dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another."""

    label: int
    predicted: int
    count: int
    share: float
    """Of all images of the class."""


def worst_pairs(matrix: NDArray[np.integer], *, most: int = 15) -> list[Pair]:
    """The most frequent mistakes of a confusion matrix (K, K), by share of their class."""
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    wrong = [
        Pair(int(i), int(j), int(matrix[i, j]), float(shares[i, j]))
        for i, j in zip(*np.nonzero(matrix), strict=True)
        if i != j
    ]
    return sorted(wrong, key=lambda pair: (-pair.share, -pair.count))[:most]


def histogram_edges(values: Array, *, bins: int = 30) -> tuple[Array, bool]:
    """Edges (bins + 1,) for values (N,), and whether they are logarithmic.

    Fused evidence is certain to 1e-69: logarithmic where the values span three decades. What lies
    below the first edge (the 1 % quantile, at least 1e-12) counts in the first bin.
    """
    high = float(values.max())
    positive = values[values > 0]
    low = max(float(np.quantile(positive, 0.01)), 1e-12) if len(positive) else high
    if high > 0 and low * 1000 < high:
        return np.geomspace(low, high, bins + 1), True
    low = float(values.min())
    return np.linspace(low, high if high > low else low + 1, bins + 1), False


def histogram(values: NDArray, edges: Array) -> Array:
    """Share (bins,) of values (N,) in each bin; those beyond the ends count in the end bins."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    return counts / max(len(values), 1)
