"""Fits on frozen features: the linear probe of CLIP's paper, and the result of CLIP-ICM."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from causalclip.icm.projection import TENSORS, InvariantProjection, ProjectionSettings

if TYPE_CHECKING:
    from causalclip.icm.folds import Fold

LPCLIP_GRID = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
LPCLIP_STEPS = 8


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features (..., D): weight (K, D), bias (K,)."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Return class logits (..., K), in the features' dtype and on their device."""
        return features @ self.weight.to(features).T + self.bias.to(features)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Return the accuracy, in [0, 1]."""
        return (self.logits(features).argmax(-1) == labels).double().mean().item()


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe with its C and the values of C it was chosen from."""

    probe: Probe
    c: float
    sweep: Sequence[Mapping[str, float]] = ()
    """Each C that was tried, with its accuracy in per cent, in order; empty if C was given."""

    @property
    def facts(self) -> dict[str, Any]:
        """The choice of C as JSON values."""
        return {"c": self.c, "sweep": list(self.sweep)}

    def state(self) -> dict[str, Tensor]:
        """Return the learned tensors by name."""
        return {"weight": self.probe.weight, "bias": self.probe.bias}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedProbe:
        """Rebuild the fit from its `state`, weight (K, D) and bias (K,), and `facts`.

        Raises:
            KeyError: a tensor or a fact is missing.
        """
        return cls(Probe(tensors["weight"], tensors["bias"]), facts["c"], facts["sweep"])


def fit_probe(
    features: Tensor, labels: Tensor, n_classes: int, *, c: float = 0.316, max_iter: int = 1000
) -> Probe:
    """Fit logistic regression with L2 penalty 1/c by L-BFGS on features (N, D), labels (N,).

    The defaults are those of CLIP (Radford et al. 2021, section 3.2 and README) and of CLIP-ICM's
    code. A class without a training image gets probability 0.

    Raises:
        ValueError: labels of one class only, or scikit-learn's, of an option out of range.
    """
    from sklearn.linear_model import LogisticRegression  # large, and needed for a fit only

    seen = labels.unique().tolist()
    if len(seen) < 2:
        raise ValueError(f"a linear probe needs images of two classes or more, got {len(seen)}")
    model = LogisticRegression(C=c, max_iter=max_iter)
    model.fit(features.cpu().numpy(), labels.cpu().numpy())
    return _probe(model.coef_, np.asarray(model.intercept_), seen, n_classes)


def _probe(coef: np.ndarray, intercept: np.ndarray, seen: list[int], n_classes: int) -> Probe:
    if len(seen) == 2:  # scikit-learn returns one row; softmax of +-d/2 is the sigmoid of d
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
    """Choose C by validation accuracy, as CoOp's lpclip: a grid, then a binary search in log C.

    Of equally good grid points, take the largest C. The search interval starts as one decade to
    either side of it. Each of the `steps` steps keeps the half at the better end, or at the smaller
    C if both are equally good. The result is the better end of the last step. `train` and `val` are
    features (N, D) and labels (N,).
    """
    from sklearn.exceptions import ConvergenceWarning

    tried: dict[float, tuple[float, Probe]] = {}

    def accuracy(c: float) -> float:
        if c not in tried:
            probe = fit_probe(*train, n_classes, c=c, max_iter=max_iter)
            tried[c] = probe.accuracy(*val), probe
        return tried[c][0]

    with warnings.catch_warnings():
        # With the weakest penalties the fit may not converge; the sweep scores these C as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = max(sorted(grid, reverse=True), key=accuracy)
        low, high = best / 10, best * 10
        for _ in range(steps):
            best = high if accuracy(low) < accuracy(high) else low
            middle = math.sqrt(low * high)
            low, high = (middle, high) if best == high else (low, middle)
    rows = [{"c": c, "accuracy": 100 * value} for c, (value, _) in tried.items()]
    return FittedProbe(tried[best][1], best, rows)


# CLIP-ICM

PROBES = ("plain", "icm")


@dataclass(frozen=True, eq=False)
class FittedICM:
    """The result of CLIP-ICM's fit; `from_state` rebuilds it from `state` and `facts`."""

    projections: Mapping[str, InvariantProjection]
    """Projections by head: `zeroshot`, `linear_probe`, `new_classes`."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """`plain` on features (..., D) and `icm` on projected features (..., k), or none."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: the folds, the number of pairs and, under `heads`, each `Chosen.record()`."""

    def state(self) -> dict[str, Tensor]:
        """Return the learned tensors by name."""
        heads = {
            f"{head}_{name}": tensor
            for head, projection in self.projections.items()
            for name, tensor in projection.tensors().items()
        }
        probes = {
            f"probe_{name}_{part}": getattr(probe, part)
            for name, probe in self.probes.items()
            for part in ("weight", "bias")
        }
        return heads | probes

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedICM:
        """Rebuild the fit from its `state`, which includes each basis (D, k), and `facts`.

        Raises:
            KeyError: a tensor or a fact is missing.
        """
        projections = {
            head: InvariantProjection(
                **{name: tensors[f"{head}_{name}"] for name in TENSORS},
                settings=ProjectionSettings(**record["settings"]),
            )
            for head, record in facts["heads"].items()
        }
        probes = {
            name: Probe(tensors[f"probe_{name}_weight"], tensors[f"probe_{name}_bias"])
            for name in PROBES
            if "linear_probe" in projections
        }
        return cls(projections, probes, facts)

    def probe_logits(self, features: Tensor) -> dict[str, Tensor]:
        """Return logits (B, K) of both probes on features (B, D), by name of the reading."""
        inside = self.projections["linear_probe"](features)
        return {
            "linear_probe": self.probes["plain"].logits(features),
            "linear_probe_icm": self.probes["icm"].logits(inside),
        }


def fit_probes(
    folds: Sequence[Fold],
    projection: InvariantProjection,
    n_classes: int,
    *,
    c: float = 0.316,
    max_iter: int = 1000,
) -> dict[str, Probe]:
    """Fit a plain probe and a probe in the subspace on all folds; options as in `fit_probe`.

    A projection (D, D) that only rotates the features rotates the weight of the plain probe: a
    second fit would stop at another point, but keeping all dimensions must change no prediction.
    """
    features = torch.cat([fold.features for fold in folds])
    labels = torch.cat([fold.labels for fold in folds])
    plain = fit_probe(features, labels, n_classes, c=c, max_iter=max_iter)
    if projection.turns_only:
        return {"plain": plain, "icm": Probe(projection(plain.weight), plain.bias)}
    inside = fit_probe(projection(features), labels, n_classes, c=c, max_iter=max_iter)
    return {"plain": plain, "icm": inside}


def joined_logits(plain: Tensor, known: Tensor, new: Tensor, is_new: Tensor) -> Tensor:
    """Return log-probabilities (B, K) of known and new classes together, by the chain rule.

        log p(k | x) = log p(group of k | x) + log p(k | group of k, x)

    The first term comes from the `plain` logits (B, K). The second comes from the `known` logits
    for known classes, and from the `new` logits for the classes marked in `is_new` (K,).
    """
    joined = plain.log_softmax(-1)
    for logits, group in ((known, ~is_new), (new, is_new)):
        if group.any():
            mass = joined[:, group].logsumexp(-1, keepdim=True)
            joined[:, group] = mass + logits[:, group].log_softmax(-1)
    return joined
