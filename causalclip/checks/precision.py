"""That a method runs in every precision its device has."""

from __future__ import annotations

import torch

from causalclip.checks.answering import answered
from causalclip.checks.outcome import NotApplicable
from causalclip.checks.subject import Subject


def offered() -> tuple[str, ...]:
    """The precisions besides fp32 that this machine computes in: a CPU has no fp16 to speak of."""
    return ("amp", "bf16", "fp16") if torch.cuda.is_available() else ("amp", "bf16")


def check_precision(subject: Subject) -> str:
    """It answers in each of them."""
    if "PREC" not in subject.kind.defaults:
        raise NotApplicable("has no PREC")
    for precision in offered():
        options = (f"{subject.node}.PREC", precision, "OPTIM.MAX_EPOCH", 1, "USE_CUDA", True)
        answered(subject.run(*options))
    return f"answers in {', '.join(offered())}"
