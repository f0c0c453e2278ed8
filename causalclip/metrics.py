"""Metrics of a classifier's probabilities: accuracy, calibration and uncertainty.

scikit-learn, torch and torchmetrics are slow to import, so they are imported where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

N_BINS = 15


def classification_metrics(
    probabilities: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    uncertainty: ArrayLike | Tensor | None = None,
) -> dict[str, float]:
    """Return measures of class probabilities (N, K) for the labels (N,), tensors or arrays.

    - `accuracy`, `macro_f1` (over the classes that occur, as in Dassl), `ece`: per cent. `ece` is
      torchmetrics' expected calibration error of the top class, 15 equal bins, l1 norm.
    - `nll`: mean -log p_y in nats; `brier`: mean of sum_k (p_k - y_k)^2, from 0 to 2.
    - `aurc`: area under the risk-coverage curve by `uncertainty` (N,), 0 to 1, lower is better;
      the uncertainty defaults to 1 - max_k p_k.
    - `n`: the number of samples.

    Raises:
        ValueError: no sample, shapes that do not match, probabilities that are NaN, negative or do
            not sum to 1, labels that are no class index.
    """
    import torch
    from sklearn.metrics import f1_score, log_loss
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, y = _checked(probabilities, labels)
    predicted = p.argmax(-1)
    correct = predicted == y
    uncertain = 1 - p.max(-1) if uncertainty is None else uncertainty
    ece = multiclass_calibration_error(
        torch.from_numpy(p), torch.from_numpy(y), num_classes=p.shape[1], n_bins=N_BINS, norm="l1"
    )
    return {
        "accuracy": 100 * float(correct.mean()),
        "macro_f1": 100 * float(f1_score(y, predicted, average="macro", labels=np.unique(y))),
        "nll": float(log_loss(y, p, labels=np.arange(p.shape[1]))),
        # scikit-learn has the multi-class Brier score since 1.7 only.
        "brier": float(np.square(p - np.eye(p.shape[1])[y]).sum(-1).mean()),
        "ece": 100 * float(ece),
        "aurc": aurc(uncertain, correct),
        "n": len(y),
    }


def novelty_auroc(
    uncertainty_base: ArrayLike | Tensor, uncertainty_new: ArrayLike | Tensor
) -> float:
    """Return the AUROC in per cent of detecting samples of new classes by their uncertainty.

    It is the probability that a sample of a new class (N_new,) is more uncertain than one of a base
    class (N_base,), where ties count one half; 50 is chance.

    Raises:
        ValueError: an empty, NaN or not one-dimensional side.
    """
    from sklearn.metrics import roc_auc_score

    base, new = _vector(uncertainty_base, "base"), _vector(uncertainty_new, "new")
    is_new = np.repeat([0, 1], [len(base), len(new)])
    return 100 * float(roc_auc_score(is_new, np.concatenate([base, new])))


def fpr_at_95(known: ArrayLike | Tensor, foreign: ArrayLike | Tensor) -> float:
    """Return the percentage of known samples that count as foreign where 95 % of foreign ones do.

    A sample counts as foreign if its score reaches a threshold: the highest one that at least 95 %
    of the foreign scores (N_foreign,) reach. Known scores are (N_known,). As in OpenOOD.

    Raises:
        ValueError: an empty, NaN or not one-dimensional side.
    """
    own, others = _vector(known, "known"), _vector(foreign, "foreign")
    threshold = np.sort(others)[::-1][int(np.ceil(0.95 * len(others))) - 1]
    return 100 * float((own >= threshold).mean())


def aurc(uncertainty: ArrayLike | Tensor, correct: ArrayLike | Tensor) -> float:
    """Area under the risk-coverage curve (Geifman et al., ICLR 2019), in [0, 1], lower is better.

        mean over i = 1..N of the error rate among the i least uncertain samples

    `uncertainty` (N,) and `correct` (N,) of 0 / 1. For samples of equal uncertainty the mean over
    all their orders is taken, so the result does not depend on the order of the data.

    Raises:
        ValueError: an empty, NaN or not one-dimensional input, or two different lengths.
    """
    return float(risk_coverage(uncertainty, correct)[1].mean())


def risk_coverage(
    uncertainty: ArrayLike | Tensor, correct: ArrayLike | Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coverage (N,) and error rate (N,) of the i least uncertain of N samples, i = 1..N.

    Arguments, ties and source as in `aurc`.

    Raises:
        ValueError: an empty, NaN or not one-dimensional input, or two different lengths.
    """
    u, right = _vector(uncertainty, "uncertainty"), _vector(correct, "correct")
    if len(u) != len(right):
        raise ValueError(f"uncertainty and correct must match, got {len(u)} and {len(right)}")
    # Averaged over all orders of a tie, each place has the tie's mean error. unique() sorts.
    _, tie, size = np.unique(u, return_inverse=True, return_counts=True)
    error = np.repeat(np.bincount(tie, weights=1 - right) / size, size)
    count = np.arange(1, len(u) + 1)
    return count / len(u), error.cumsum() / count


def _array(values: ArrayLike | Tensor) -> NDArray[Any]:
    # isinstance(values, torch.Tensor) would import torch.
    detach = getattr(values, "detach", None)
    return np.asarray(values) if detach is None else detach().cpu().numpy()


def _vector(values: ArrayLike | Tensor, name: str) -> NDArray[np.float64]:
    vector = _array(values).astype(np.float64)
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"{name} must be a non-empty vector, got shape {vector.shape}")
    if np.isnan(vector).any():
        raise ValueError(f"{name} must not hold NaN, got {np.isnan(vector).sum()} of {len(vector)}")
    return vector


def _checked(
    probabilities: ArrayLike | Tensor, labels: ArrayLike | Tensor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p, y = _array(probabilities).astype(np.float64), _array(labels)
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(y) or p.shape[1] < 2:
        raise ValueError(
            "probabilities must have shape (samples, classes) and labels (samples,), with at least "
            f"one sample and two classes, got {p.shape} and {y.shape}"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(
            f"labels must be integers in [0, {p.shape[1]}), got {y.dtype} {y.min()} .. {y.max()}"
        )
    total = p.sum(-1)
    # Sums in half precision are off by up to about 1e-3. NaN fails both comparisons.
    wrong = ~((np.abs(total - 1) < 5e-3) & (p.min(-1) >= 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            "probabilities must be non-negative and sum to 1 in every row, got "
            f"{wrong.sum()} bad rows, the first is row {row} with sum {total[row]:.6g}"
        )
    return p / total[:, None], y.astype(np.int64)
