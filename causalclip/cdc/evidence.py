"""Evidence, Dirichlet opinions and their fusion: the "trusted" half of CDC's classifier.

Subjective logic as in Trusted Multi-View Classification (TMC; Han et al., ICLR 2021), section 3.
The class axis is the last; templates (views), where there are several, are the axis before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

EvidenceKind = Literal["exp", "softplus", "relu"]
FusionRule = Literal["dempster", "averaging"]

# exp(80) = 5.5e34. The largest round exponent at which the strength S of 1,000 classes (5.5e37) is
# still finite in fp32 and eight fused templates (e^640) are finite in float64. CLIP's logits, 100
# times a cosine, seldom stray that far from their mean; classes beyond it would tie, so it is not
# smaller.
MAX_EXPONENT = 80.0


@dataclass(frozen=True)
class Opinion:
    """A subjective-logic opinion: sum_k belief_k + uncertainty = 1."""

    belief: Tensor
    """Belief mass of each class, shape (..., K)."""
    uncertainty: Tensor
    """Mass on "any class", shape (...)."""


def evidence_from_logits(
    logits: Tensor,
    offset: float | Tensor = 0.0,
    *,
    kind: EvidenceKind = "exp",
    max_exponent: float = MAX_EXPONENT,
) -> Tensor:
    """Turn logits (..., K) into non-negative evidence (..., K), at least in single precision.

    `exp`: e = exp(min(logits - offset, max_exponent)); `softplus` and `relu` act on
    logits - offset. `offset` is a number or broadcasts to the logits: one for all samples, or the
    mean (..., 1) of each image's own [ours], which counts what a class has above the others; CLIP's
    cosines have a level that differs from image to image and says nothing of the classes.

    Raises:
        ValueError: unknown `kind`.
    """
    # Half precision ends at exp(11), so evidence is never held in it.
    centred = logits.to(torch.promote_types(logits.dtype, torch.float32)) - offset
    if kind == "exp":
        return centred.clamp(max=max_exponent).exp()
    if kind == "softplus":
        return F.softplus(centred)
    if kind == "relu":
        return F.relu(centred)
    raise ValueError(f"kind must be 'exp', 'softplus' or 'relu', got {kind!r}")


def probabilities(evidence: Tensor) -> Tensor:
    """Expected class probabilities alpha / S of the Dirichlet, (..., K) -> (..., K)."""
    alpha = evidence + 1
    return alpha / alpha.sum(-1, keepdim=True)


def uncertainty(evidence: Tensor) -> Tensor:
    """Uncertainty mass u = K / S, with S = sum_k (e_k + 1), (..., K) -> (...)."""
    n_classes = evidence.shape[-1]
    return n_classes / (evidence.sum(-1) + n_classes)


def opinion(evidence: Tensor) -> Opinion:
    """Opinion of the evidence (..., K): b = e / S and u = K / S (TMC, section 3.1)."""
    n_classes = evidence.shape[-1]
    strength = evidence.sum(-1, keepdim=True) + n_classes
    return Opinion(evidence / strength, n_classes / strength.squeeze(-1))


def evidence_of(opinion: Opinion) -> Tensor:
    """Evidence (..., K) behind an opinion, e = K b / u: the inverse of `opinion`."""
    n_classes = opinion.belief.shape[-1]
    return n_classes * opinion.belief / opinion.uncertainty.unsqueeze(-1)


def fuse(evidence: Tensor, *, rule: FusionRule = "dempster", discount: float = 1.0) -> Tensor:
    """Fuse the evidence of M templates, (..., M, K) -> (..., K).

    `dempster`: TMC's reduced Dempster rule over all M opinions at once, discounted,

        e = K expm1( discount * sum_m log1p(e^m / K) ).

    discount = 1 is Dempster's rule, which takes the templates for independent witnesses; 1 / M is
    their geometric average [ours]. No discount changes the predicted class. `averaging`: the mean
    evidence, which is averaging belief fusion.

    The result is finite in the dtype of `evidence`: where the fused evidence would overflow, all
    classes are scaled down together, which moves no probability by more than u and keeps u from
    falling below K e / max (1e-37 K in fp32). Fuse `evidence.double()` where very certain samples
    are to be ranked by uncertainty.

    Raises:
        ValueError: no template axis, unknown `rule`, a discount outside [1 / M, 1] or one with
            `averaging`, which has none.
    """
    n_templates, n_classes = _templates_and_classes(evidence)
    _check_discount(discount, n_templates)
    if rule == "averaging":
        if discount != 1:
            raise ValueError(f"rule 'averaging' takes no discount, got {discount}")
        return evidence.mean(-2)
    if rule != "dempster":
        raise ValueError(f"rule must be 'dempster' or 'averaging', got {rule!r}")
    exponent = discount * torch.log1p(evidence / n_classes).sum(-2)
    # Detached: the scale is a number format's concern, the gradient is that of the exact rule.
    total = exponent.detach().logsumexp(-1, keepdim=True)
    shift = (total - _largest_total_exponent(evidence)).clamp(min=0)
    # = exp(-shift) expm1(exponent), without forming expm1(exponent); exact where shift is 0.
    return n_classes * (torch.expm1(exponent - shift) - torch.expm1(-shift))


def conflict(evidence: Tensor) -> Tensor:
    """Total conflict of combining M templates by Dempster's rule, (..., M, K) -> (...), in [0, 1].

    With C_t the mass that step t of the successive combination gives to the empty set,

        1 - prod_t (1 - C_t) = 1 - prod_m u_m / u_fused,

    whatever the order of the templates. A diagnostic: no gradient.

    Raises:
        ValueError: no template axis.
    """
    _templates_and_classes(evidence)
    # float64: the logarithms are in the hundreds and their difference is what counts.
    exact = evidence.detach().double()
    log_agreement = uncertainty(exact).log().sum(-1) - uncertainty(fuse(exact)).log()
    return (-torch.expm1(log_agreement)).clamp(0, 1).to(evidence.dtype)


def fit_discount(
    evidence: Tensor, labels: Tensor, *, bounds: tuple[float, float] | None = None
) -> float:
    """Choose `fuse`'s discount by the negative log-likelihood of the fused probabilities [ours].

    `evidence` (N, M, K) and `labels` (N,) are of a validation split; `bounds` is (1 / M, 1) unless
    given. The discount never changes the predicted class (fused evidence is the same increasing
    function of the summed logarithms for all classes), only how certain it claims to be.

    Raises:
        ValueError: wrong shapes, no sample, evidence that is not finite, bounds outside [1 / M, 1].
    """
    # Imported here: everything else in this module needs torch alone.
    from scipy.optimize import OptimizeResult, minimize_scalar

    low, high = _check_fit(evidence, labels, bounds)
    exact = evidence.detach().double()

    def loss(discount: float) -> float:
        chosen = probabilities(fuse(exact, discount=discount)).gather(-1, labels[:, None].long())
        # A probability can underflow to 0 in float64 only beyond e^-745; one such sample is finite.
        return -chosen.clamp_min(torch.finfo(exact.dtype).tiny).log().mean().item()

    candidates = [high, low]
    if low < high:
        # The bounded search never tries the ends themselves, and either may be the best.
        found = minimize_scalar(loss, bounds=(low, high), method="bounded")
        candidates.append(float(cast(OptimizeResult, found).x))
    return min(candidates, key=loss)


def _templates_and_classes(evidence: Tensor) -> tuple[int, int]:
    if evidence.ndim < 2 or not evidence.shape[-2] or not evidence.shape[-1]:
        raise ValueError(
            "evidence must have shape (..., templates, classes) with at least one of each, "
            f"got {tuple(evidence.shape)}"
        )
    return evidence.shape[-2], evidence.shape[-1]


def _check_discount(discount: float, n_templates: int) -> None:
    # Some slack, so that a 1 / M that was stored in fp32 is accepted.
    if not (1 - 1e-6) / n_templates <= discount <= 1:
        raise ValueError(
            f"discount must be in [1 / templates, 1] = [{1 / n_templates:.4g}, 1], got {discount}"
        )


def _largest_total_exponent(evidence: Tensor) -> float:
    """Largest log sum_k exp(exponent_k) for which the sum of K expm1(exponent_k) is finite."""
    # One nat of room for rounding and for the ones that turn evidence into alpha.
    return math.log(torch.finfo(evidence.dtype).max) - math.log(evidence.shape[-1]) - 1


def _check_fit(
    evidence: Tensor, labels: Tensor, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    if evidence.ndim != 3 or labels.shape != evidence.shape[:1] or not len(labels):
        raise ValueError(
            "evidence must have shape (samples, templates, classes) and labels (samples,) with at "
            f"least one sample, got {tuple(evidence.shape)} and {tuple(labels.shape)}"
        )
    if not evidence.isfinite().all():
        raise ValueError("evidence must be finite to fit a discount, got inf or NaN")
    n_templates, _ = _templates_and_classes(evidence)
    low, high = bounds or (1 / n_templates, 1.0)
    for bound in (low, high):
        _check_discount(bound, n_templates)
    if low > high:
        raise ValueError(f"bounds must be increasing, got {bounds}")
    return low, high
