"""The linear probe of CLIP's paper: scikit-learn's logistic regression on image features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LPCLIP_GRID = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
LPCLIP_STEPS = 8


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features (..., D): weight (K, D), bias (K,)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Class logits (..., K), in the features' dtype and on their device."""
        return features @ self.weight.to(features).T + self.bias.to(features)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of right answers, in [0, 1]."""
        return (self.logits(features).argmax(-1) == labels).double().mean().item()


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe with its C and the values of C it was chosen from."""

    probe: Probe
    c: float
    sweep: Sequence[Mapping[str, float]] = ()
    """Every (c, accuracy in per cent) tried, in order; empty where C was given."""

    @property
    def facts(self) -> dict[str, Any]:
        """The choice as JSON values."""
        return {"c": self.c, "sweep": list(self.sweep)}

    def state(self) -> dict[str, Tensor]:
        """What was learned, by name."""
        return {"weight": self.probe.weight, "bias": self.probe.bias}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedProbe:
        """The fit that `state` and `facts` were taken of.

        Raises:
            KeyError: a tensor or a fact is missing.
        """
        return cls(Probe(tensors["weight"], tensors["bias"]), facts["c"], facts["sweep"])


def fit_probe(
    features: Tensor, labels: Tensor, n_classes: int, *, c: float = 0.316, max_iter: int = 1000
) -> Probe:
    """Logistic regression with L2 penalty 1/c by L-BFGS on features (N, D), labels (N,).

    c 0.316 and 1000 iterations are CLIP's (Radford et al. 2021, section 3.2 and README) and those
    of CLIP-ICM's code. A class without a training image gets probability 0.

    Raises:
        ValueError: c or max_iter out of range, labels of one class only.
    """
    from sklearn.linear_model import LogisticRegression  # large, and only a fit needs it

    if not 0 < c < float("inf"):
        raise ValueError(f"c must be a positive number, got {c}")
    if not isinstance(max_iter, int) or max_iter < 1:
        raise ValueError(f"max_iter must be a positive int, got {max_iter!r}")
    seen = labels.unique().tolist()
    if len(seen) < 2:
        raise ValueError(f"a linear probe needs images of two classes or more, got {len(seen)}")
    model = LogisticRegression(C=c, max_iter=max_iter)
    model.fit(features.cpu().numpy(), labels.cpu().numpy())
    return _probe(model.coef_, np.asarray(model.intercept_), seen, n_classes)


def _probe(coef: np.ndarray, intercept: np.ndarray, seen: list[int], n_classes: int) -> Probe:
    if len(seen) == 2:  # scikit-learn keeps one row; softmax of +-d/2 is the sigmoid of d
        coef = np.concatenate([-coef, coef]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weight = torch.zeros(n_classes, coef.shape[1])
    bias = torch.full((n_classes,), -torch.inf)
    weight[seen] = torch.from_numpy(coef).float()
    bias[seen] = torch.from_numpy(intercept).float()
    return Probe(weight, bias)


def sweep_c(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    n_classes: int,
    *,
    grid: Sequence[float] = LPCLIP_GRID,
    steps: int = LPCLIP_STEPS,
    max_iter: int = 1000,
) -> FittedProbe:
    """C by validation accuracy, as in CoOp's lpclip: a coarse grid, then a binary search in log C.

    Of equal grid points the largest C is taken. The search starts one decade to either side of it
    and moves, `steps` times, towards the better half, the smaller C if both are as good; the better
    end of the last step is the answer.

    Args:
        train: features (N, D) and labels (N,) to fit on.
        val: features (V, D) and labels (V,) to choose C on.
        n_classes: number of classes K.
        grid: values of C to start from.
        steps: of the binary search after it.
        max_iter: as in `fit_probe`.

    Raises:
        ValueError: a value of C or max_iter out of range, labels of one class only.
    """
    from sklearn.exceptions import ConvergenceWarning

    tried: dict[float, tuple[float, Probe]] = {}

    def accuracy(c: float) -> float:
        if c not in tried:
            probe = fit_probe(*train, n_classes, c=c, max_iter=max_iter)
            tried[c] = probe.accuracy(*val), probe
        return tried[c][0]

    with warnings.catch_warnings():
        # The weakest penalties of the grid do not converge in 1000 steps; the sweep is to find out.
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = max(sorted(grid, reverse=True), key=accuracy)
        low, high = best / 10, best * 10
        for _ in range(steps):
            best = high if accuracy(low) < accuracy(high) else low
            middle = math.sqrt(low * high)
            low, high = (middle, high) if best == high else (low, middle)
    rows = [{"c": c, "accuracy": 100 * value} for c, (value, _) in tried.items()]
    return FittedProbe(tried[best][1], best, rows)
