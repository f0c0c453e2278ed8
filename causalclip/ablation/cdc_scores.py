"""What a base-to-novel row is measured by: accuracies, calibration, novelty, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import hmean

from causalclip.metrics import novelty_auroc
from causalclip.report.predictions import PREDICTIONS_FILE, Predictions
from causalclip.report.results import RESULTS_FILE, Metrics, Result
from causalclip.runs.plan import Run


def quantities(runs: Sequence[Run], reading: str, split: str) -> dict[str, float]:
    """The quantities of one seed by name: per cent, milliseconds, images a second, MiB.

    Args:
        runs: a training and its tests on both halves of the classes.
        reading: as in `Variant`.
        split: val or test.
    """
    of = {run.part: run for run in runs}
    train, base, new = (
        Result.read(of[part].folder / RESULTS_FILE)
        for part in ("train_base", f"{split}_base", f"{split}_new")
    )
    found = {"base": metrics(base, reading), "new": metrics(new, reading)}
    accuracies = {half: measured["accuracy"] for half, measured in found.items()}
    return {
        **accuracies,
        "HM": float(hmean(list(accuracies.values()))),
        **{f"ECE {half}": measured["ece"] for half, measured in found.items()},
        "AUROC": novelty_auroc(
            *(uncertainty(of[f"{split}_{half}"], reading) for half in ("base", "new"))
        ),
        **cost(train.training or {}),
        "images/s": (base.evaluation["images"] + new.evaluation["images"])
        / (base.evaluation["seconds"] + new.evaluation["seconds"]),
    }


def metrics(result: Result, reading: str) -> Metrics:
    """The metrics of a reading, or of a member by `template/NUMBER`."""
    name, _, number = reading.partition("/")
    if number:
        return result.members[name][int(number)]
    return result.variants[name] if name else result.metrics


def uncertainty(run: Run, reading: str) -> np.ndarray:
    """The uncertainty (N,) of a reading or a member about the test images of a run."""
    found = Predictions.read(run.folder / PREDICTIONS_FILE)
    name, _, number = reading.partition("/")
    if number:
        return found.arrays[f"{name}_uncertainty"][:, int(number)]
    return found.uncertainty(name)


def cost(training: Mapping[str, float]) -> dict[str, float]:
    """What a training took; nothing of one that was not timed."""
    if not training:
        return {}
    return {
        "parameters (1000)": training["learnable_parameters"] / 1000,
        "ms a step": 1000 * training["seconds"] / training["steps"],
        "memory MB": training["peak_memory_mb"],
    }
