"""CDC's ablation: its runs, and the quantities that a row is measured by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from causalclip.metrics import novelty_auroc
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.records.results import RESULTS_FILE, Metrics, Result
from causalclip.runs.plan import Run
from causalclip.runs.protocols import Part, Protocol


def protocol(split: str) -> Protocol:
    """Return base-to-novel, tested on all images of one split; no training sees a test image."""
    folder = "ablation/{method}/{dataset}/shots_{shots}/{part}/{recipe}/seed{seed}"
    base, new = (("DATASET.SUBSAMPLE_CLASSES", half) for half in ("base", "new"))
    all_images = ("DATASET.NUM_SHOTS", "-1", "TEST.SPLIT", split)  # not those of a few-shot set
    few = ("DATASET.NUM_SHOTS", "{num_shots}", "TEST.SPLIT", "val")
    train = Part("train_base", folder, (*few, *base))
    tests = (
        Part(f"{split}_base", folder, (*all_images, *base), tests=train.name),
        Part(f"{split}_new", folder, (*all_images, *new), tests=train.name, other_classes=True),
    )
    return Protocol("ablation", (train, *tests))


def quantities(runs: Sequence[Run], reading: str, split: str) -> dict[str, float]:
    """Return the quantities of one seed by name: per cent, milliseconds, images a second, MiB.

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
    base_metrics, new_metrics = reading_metrics(base, reading), reading_metrics(new, reading)
    accuracies = base_metrics["accuracy"], new_metrics["accuracy"]
    uncertainties = (
        reading_uncertainty(of[f"{split}_{half}"], reading) for half in ("base", "new")
    )
    evaluations = base.evaluation, new.evaluation
    values = {
        "base": accuracies[0],
        "new": accuracies[1],
        "HM": float(scipy.stats.hmean(accuracies)),
        "ECE base": base_metrics["ece"],
        "ECE new": new_metrics["ece"],
        "AUROC": novelty_auroc(*uncertainties),
        "images/s": sum(e["images"] for e in evaluations) / sum(e["seconds"] for e in evaluations),
    }
    if cost := train.training:
        values["parameters (1000)"] = cost["learnable_parameters"] / 1000
        values["ms a step"] = 1000 * cost["seconds"] / cost["steps"]
        values["memory MB"] = cost["peak_memory_mb"]
    return values


def reading_metrics(result: Result, reading: str) -> Metrics:
    """Return the metrics of a reading, or of a member by `template/NUMBER`."""
    name, _, number = reading.partition("/")
    if number:
        return result.members[name][int(number)]
    return result.variants[name] if name else result.metrics


def reading_uncertainty(run: Run, reading: str) -> np.ndarray:
    """Return the uncertainty (N,) of a reading or a member about the test images of a run."""
    predictions = Predictions.read(run.folder / PREDICTIONS_FILE)
    name, _, number = reading.partition("/")
    if number:
        return predictions.arrays[f"{name}_uncertainty"][:, int(number)]
    return predictions.uncertainty(name)
