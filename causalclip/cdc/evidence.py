"""Evidence, Dirichlet opinions and their fusion: the "trusted" half of CDC's classifier.

Subjective logic as in Trusted Multi-View Classification (TMC; Han et al., ICLR 2021), section 3.
The class axis is the last; the axis of the templates (views), if there are any, is before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

EvidenceKind = Literal["exp", "softplus", "relu"]
FusionRule = Literal["dempster", "averaging"]
FusionName = Literal["dempster", "discounted", "averaging", "probabilities", "logits"]
FusedAnswer = tuple[Tensor, Tensor]
"""Class probabilities (..., K) and an uncertainty (...), larger for less certain answers."""

# The largest round exponent at which the strength S of 1,000 classes (5.5e37) is finite in fp32 and
# eight fused templates (e^640) in float64. Not smaller, since classes with larger exponents tie.
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
    logits - offset. `offset` broadcasts to the logits: one number for all samples, or each image's
    mean logit (..., 1) [ours], since the level of CLIP's cosines differs between images and carries
    no information on the classes.

    Raises:
        ValueError: unknown `kind`.
    """
    # fp16 overflows above exp(11), so evidence is at least fp32.
    centred = logits.to(torch.promote_types(logits.dtype, torch.float32)) - offset
    if kind == "exp":
        return centred.clamp(max=max_exponent).exp()
    if kind == "softplus":
        return F.softplus(centred)
    if kind == "relu":
        return F.relu(centred)
    raise ValueError(f"kind must be 'exp', 'softplus' or 'relu', got {kind!r}")


def probabilities(evidence: Tensor) -> Tensor:
    """Return the expected class probabilities alpha / S of the Dirichlet, (..., K) -> (..., K)."""
    alpha = evidence + 1
    return alpha / alpha.sum(-1, keepdim=True)


def uncertainty(evidence: Tensor) -> Tensor:
    """Return the uncertainty mass u = K / S, with S = sum_k (e_k + 1), (..., K) -> (...)."""
    n_classes = evidence.shape[-1]
    return n_classes / (evidence.sum(-1) + n_classes)


def opinion(evidence: Tensor) -> Opinion:
    """Return the opinion of evidence (..., K): b = e / S and u = K / S (TMC, section 3.1)."""
    n_classes = evidence.shape[-1]
    strength = evidence.sum(-1, keepdim=True) + n_classes
    return Opinion(evidence / strength, n_classes / strength.squeeze(-1))


def fuse(evidence: Tensor, *, rule: FusionRule = "dempster", discount: float = 1.0) -> Tensor:
    """Fuse the evidence of M templates, (..., M, K) -> (..., K).

    `dempster`: TMC's reduced Dempster rule over all M opinions at once, discounted,

        e = K expm1( discount * sum_m log1p(e^m / K) ).

    discount = 1 is Dempster's rule, which assumes that the templates are independent; 1 / M is
    their geometric average [ours]. No discount changes the predicted class. `averaging`: the mean
    evidence, which is averaging belief fusion.

    The result is finite in the dtype of `evidence`: where the fused evidence would overflow, all
    classes are scaled down together. This changes no probability by more than u and keeps u from
    falling below K e / max (8e-39 K in fp32), with max the dtype's largest number. To rank very
    certain samples by uncertainty, fuse `evidence.double()`.

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
    # Detached: the scale only avoids an overflow, and the gradient is that of the exact rule.
    total = exponent.detach().logsumexp(-1, keepdim=True)
    shift = (total - _largest_total_exponent(evidence)).clamp(min=0)
    # = exp(-shift) expm1(exponent), without forming expm1(exponent); exact where shift is 0.
    return n_classes * (torch.expm1(exponent - shift) - torch.expm1(-shift))


def conflict(evidence: Tensor) -> Tensor:
    """Return Dempster's conflict of M templates, (..., M, K) -> (...), in [0, 1].

    With C_t the mass that step t of the successive combination gives to the empty set,

        1 - prod_t (1 - C_t) = 1 - prod_m u_m / u_fused,

    whatever the order of the templates. A diagnostic: no gradient.

    Raises:
        ValueError: no template axis.
    """
    _templates_and_classes(evidence)
    # float64: the logarithms are in the hundreds, and only their difference matters.
    exact = evidence.detach().double()
    log_agreement = uncertainty(exact).log().sum(-1) - uncertainty(fuse(exact)).log()
    return (-torch.expm1(log_agreement)).clamp(0, 1).to(evidence.dtype)


def fit_discount(evidence: Tensor, labels: Tensor) -> float:
    """Choose `fuse`'s discount by the negative log-likelihood of the fused probabilities [ours].

    `evidence` (N, M, K) and `labels` (N,) are of a validation split. The discount, in [1 / M, 1],
    never changes the predicted class (fused evidence is the same increasing function of the summed
    logarithms for all classes), only its confidence.

    Raises:
        ValueError: wrong shapes, no sample, evidence that is not finite.
    """
    # Imported here: everything else in this module needs only torch.
    from scipy.optimize import OptimizeResult, minimize_scalar

    _check_labelled(evidence, labels)
    n_templates, _ = _templates_and_classes(evidence)
    exact = evidence.detach().double()

    def loss(discount: float) -> float:
        chosen = probabilities(fuse(exact, discount=discount)).gather(-1, labels[:, None].long())
        # A probability underflows to 0 in float64 only below e^-745; the clamp keeps log finite.
        return -chosen.clamp_min(torch.finfo(exact.dtype).tiny).log().mean().item()

    candidates = [1.0, 1 / n_templates]
    if n_templates > 1:
        # The bounded search never tries the ends themselves, and either may be the best.
        result = minimize_scalar(loss, bounds=(1 / n_templates, 1.0), method="bounded")
        candidates.append(float(cast(OptimizeResult, result).x))
    return min(candidates, key=loss)


def opinion_answer(evidence: Tensor) -> FusedAnswer:
    """Return alpha / S (..., K) and K / S (...) of opinions with evidence (..., K)."""
    return probabilities(evidence), uncertainty(evidence)


def softmax_answer(logits: Tensor) -> FusedAnswer:
    """Return the softmax (..., K) of logits (..., K) and 1 - max p (...)."""
    # Logits may come in bf16 (PREC amp), in which 1 - max p would have two digits.
    precise = torch.promote_types(logits.dtype, torch.float32)
    return _with_uncertainty(logits.softmax(-1, dtype=precise))


@dataclass(frozen=True)
class Fusion:
    """A rule that fuses M templates (..., M, K) into one answer (..., K)."""

    answer: Callable[[Tensor, Tensor, Tensor, float], FusedAnswer]
    """Function of logits, evidence, each template's probabilities (..., M, K), and the discount."""
    log_probabilities: Callable[[Tensor, Tensor], Tensor]
    """Function of logits and evidence, for training, without a discount."""
    evidence: Callable[[Tensor], Tensor] | None = None
    """Function of evidence, for training; None if the result is not an opinion."""

    def scores(self, logits: Tensor, evidence: Tensor) -> Tensor:
        """Return fused evidence (..., K), or log-probabilities where there is none."""
        if self.evidence is None:
            return self.log_probabilities(logits, evidence)
        return self.evidence(evidence)


def _opinion_fusion(fused: Callable[[Tensor, float], Tensor]) -> Fusion:
    return Fusion(
        answer=lambda _logits, evidence, _each, eta: opinion_answer(fused(evidence, eta)),
        log_probabilities=lambda _, evidence: probabilities(fused(evidence, 1.0)).log(),
        evidence=lambda evidence: fused(evidence, 1.0),
    )


FUSIONS: Mapping[FusionName, Fusion] = {
    "dempster": _opinion_fusion(lambda evidence, _: fuse(evidence)),
    "discounted": _opinion_fusion(lambda evidence, eta: fuse(evidence, discount=eta)),
    "averaging": _opinion_fusion(lambda evidence, _: fuse(evidence, rule="averaging")),
    "probabilities": Fusion(
        answer=lambda _logits, _evidence, each, _eta: _with_uncertainty(each.mean(-2)),
        # in logarithms, so that no softmax underflows
        log_probabilities=lambda logits, _: (
            logits.log_softmax(-1).logsumexp(-2) - math.log(logits.shape[-2])
        ),
    ),
    "logits": Fusion(
        answer=lambda logits, _evidence, _each, _eta: softmax_answer(logits.mean(-2)),
        log_probabilities=lambda logits, _: logits.mean(-2).log_softmax(-1),
    ),
}


def _with_uncertainty(mixed: Tensor) -> FusedAnswer:
    return mixed, 1 - mixed.amax(-1)  # probabilities alone contain no evidence


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
    """Return the largest log sum_k exp(exponent_k) with a finite sum of K expm1(exponent_k)."""
    # One nat is left for rounding and for the ones that turn evidence into alpha.
    return math.log(torch.finfo(evidence.dtype).max) - math.log(evidence.shape[-1]) - 1


def _check_labelled(evidence: Tensor, labels: Tensor) -> None:
    if evidence.ndim != 3 or labels.shape != evidence.shape[:1] or not len(labels):
        raise ValueError(
            "evidence must have shape (samples, templates, classes) and labels (samples,) with at "
            f"least one sample, got {tuple(evidence.shape)} and {tuple(labels.shape)}"
        )
    if not evidence.isfinite().all():
        raise ValueError("evidence must be finite to fit a discount, got inf or NaN")
