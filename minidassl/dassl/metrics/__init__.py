"""Training-time metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["compute_accuracy"]


def compute_accuracy(
    output: Tensor | Sequence[Tensor], target: Tensor, topk: Sequence[int] = (1,)
) -> list[Tensor]:
    """Return, per k, the percentage of rows whose target is among the k largest scores, shape (1,).

    output: scores (B, K), or a tuple whose first item is the scores; target: labels (B,).
    """
    scores: Tensor = output if isinstance(output, Tensor) else output[0]
    ranked = scores.topk(max(topk), dim=1).indices  # (B, max k)
    hits = ranked == target[:, None]
    percent = 100.0 / len(target)
    return [hits[:, :k].any(dim=1).to(torch.float32).sum(0, keepdim=True) * percent for k in topk]
