"""That a run answers: probabilities and uncertainties of every test image, and their metrics."""

from __future__ import annotations

import json

import numpy as np

from causalclip.checks.outcome import require
from causalclip.checks.subject import Run, Subject
from causalclip.report.results import RESULTS_FILE


def check_answers(subject: Subject) -> str:
    """A run leaves results.json and predictions.npz, which agree."""
    run = subject.whole
    record = json.loads((run.folder / RESULTS_FILE).read_text(encoding="utf-8"))
    said = (record["trainer"], record["seed"], record["classnames"])
    expected = (subject.name, 1, run.trainer.classnames)
    require(said == expected, f"results.json says {said}, expected {expected}")
    words = answered(run)
    right = 100 * (run.answers["prediction"] == run.answers["label"]).mean()
    accuracy = record["metrics"]["accuracy"]
    require(abs(accuracy - right) < 1e-3, f"results.json says {accuracy} %, the answers {right} %")
    return words


def answered(run: Run) -> str:
    """Require an answer about every test image.

    Raises:
        CheckFailed: rows or classes are missing, or are no probabilities.
    """
    answers, images = run.answers, len(run.trainer.dm.dataset.test)
    shape, wanted = answers["probabilities"].shape, (images, len(run.trainer.classnames))
    require(shape == wanted, f"probabilities of shape {shape}, expected {wanted}")
    sums = answers["probabilities"].sum(1)
    require(bool(np.allclose(sums, 1, atol=1e-4)), f"probabilities sum to {sums.tolist()}")
    uncertainty = answers["uncertainty"]
    require(uncertainty.shape == (images,), f"uncertainty of shape {uncertainty.shape}")
    require(bool(np.isfinite(uncertainty).all()), f"uncertainty {uncertainty.tolist()}")
    return f"{wanted[0]} images, {wanted[1]} class{'' if wanted[1] == 1 else 'es'}"


def check_frozen(subject: Subject) -> str:
    """CLIP is after a training what it was, and everything that should learn has a gradient."""
    trainer = subject.whole.trainer
    fresh = subject.build()
    before = fresh.clip.state_dict()
    moved = [k for k, v in trainer.clip.state_dict().items() if not v.equal(before[k])]
    require(not moved, f"the training has moved CLIP's {', '.join(moved[:3])}")
    reached = [
        k for k, p in trainer.clip.named_parameters() if p.requires_grad or p.grad is not None
    ]
    require(not reached, f"gradients reach CLIP's {', '.join(reached[:3])}")
    if not subject.learns_by_steps():
        return "CLIP is as it was"
    learning = [
        (f"{name}.{key}", p)
        for name, model in trainer._models.items()
        for key, p in model.named_parameters()
        if p.requires_grad
    ]
    # a zero at the end is no fault of what has moved: a ReLU of few units may be shut by then
    start = {
        f"{name}.{key}": p for name, m in fresh._models.items() for key, p in m.named_parameters()
    }
    idle = [
        key for key, p in learning if p.grad is None or (not p.grad.any() and p.equal(start[key]))
    ]
    require(bool(learning) and not idle, f"no gradient for {', '.join(idle[:3]) or 'anything'}")
    return f"CLIP is as it was, {len(learning)} tensors learn"
