"""What M templates say of an image: each alone, and fused in five ways.

An answer is class probabilities (..., K) and an uncertainty (...), larger where less is certain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from causalclip.cdc.evidence import fuse, probabilities, uncertainty

Answer = tuple[Tensor, Tensor]


def of_evidence(evidence: Tensor) -> Answer:
    """alpha / S (..., K) and K / S (...) of opinions (..., K)."""
    return probabilities(evidence), uncertainty(evidence)


def of_logits(logits: Tensor) -> Answer:
    """Softmax (..., K) and 1 - max p (...) of logits (..., K)."""
    # Logits may come in bf16 (PREC amp), in which 1 - max p would have two digits.
    precise = torch.promote_types(logits.dtype, torch.float32)
    return of_probabilities(logits.softmax(-1, dtype=precise))


def of_probabilities(mixed: Tensor) -> Answer:
    """Probabilities (..., K), which hold no evidence: their uncertainty is 1 - max p (...)."""
    return mixed, 1 - mixed.amax(-1)


def fused(
    logits: Tensor, evidence: Tensor, templates: Tensor, *, discount: float
) -> dict[str, Answer]:
    """The templates' answers fused by every rule, (B, K) and (B,).

    Args:
        logits: (B, M, K).
        evidence: (B, M, K), of the logits.
        templates: (B, M, K), the probabilities that each template gives.
        discount: eta of `discounted`, in [1 / M, 1].
    """
    return {
        "dempster": of_evidence(fuse(evidence)),
        "discounted": of_evidence(fuse(evidence, discount=discount)),
        "averaging": of_evidence(fuse(evidence, rule="averaging")),
        "probabilities": of_probabilities(templates.mean(-2)),
        "logits": of_logits(logits.mean(-2)),
    }
