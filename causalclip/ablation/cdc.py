"""CDC's ablation: its runs, the quantities of each row, and its figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalclip.ablation.tables import Row
from causalclip.metrics import novelty_auroc
from causalclip.plots.panels import draw_panels
from causalclip.plots.run_plots import histogram_panels
from causalclip.plots.style import series_colour
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.records.results import RESULTS_FILE, Metrics, Result
from causalclip.runs.plan import Run
from causalclip.runs.protocols import Part, Protocol


def protocol(split: str) -> Protocol:
    """Return base-to-novel, tested on all images of one split; no training reads a test image."""
    folder = "ablation/{method}/{dataset}/shots_{shots}/{part}/{recipe}/seed{seed}"
    base, new = (("DATASET.SUBSAMPLE_CLASSES", half) for half in ("base", "new"))
    all_images = ("DATASET.NUM_SHOTS", "-1", "TEST.SPLIT", split)  # not a few-shot subset
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
    base_metrics, new_metrics = metrics_of(base, reading), metrics_of(new, reading)
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


def metrics_of(result: Result, reading: str) -> Metrics:
    """Return the metrics of a reading, or of the member `template/NUMBER`."""
    name, _, number = reading.partition("/")
    if number:
        return result.members[name][int(number)]
    return result.variants[name] if name else result.metrics


def reading_uncertainty(run: Run, reading: str) -> np.ndarray:
    """Return the uncertainty (N,) of a reading or a member on the test images of a run."""
    predictions = Predictions.read(run.folder / PREDICTIONS_FILE)
    name, _, number = reading.partition("/")
    if number:
        return predictions.arrays[f"{name}_uncertainty"][:, int(number)]
    return predictions.uncertainty(name)


# Figures


def over_epochs(rows: Sequence[Row], split: str) -> dict[str, Figure]:
    """Draw accuracy on base and on new classes after every epoch: mean and deviation over seeds."""
    figure, axes, epochs = _epoch_axes(rows, "accuracy (%)")
    for number, half in enumerate(("base", "new")):
        values = [
            [r.metrics["accuracy"] for r in results_of(row, f"{split}_{half}")] for row in rows
        ]
        mean, sd = (np.array([f(v) for v in values]) for f in (np.mean, np.std))
        colour = series_colour(number)
        axes.plot(epochs, mean, color=colour, label=f"{half} classes")
        axes.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.2, lw=0)
    axes.legend()
    return {"epochs": figure}


def cosines_over_epochs(rows: Sequence[Row], split: str) -> dict[str, Figure]:
    """Draw the mean cosine of two templates' class texts after every epoch, one line per pair."""
    figure, axes, epochs = _epoch_axes(rows, "cosine between templates")
    over = np.stack([pair_cosines(row, f"{split}_base") for row in rows])  # (E, pairs)
    for pair, values in enumerate(over.T):
        axes.plot(epochs, values, color="0.7", lw=0.8, label="a pair" if not pair else None)
    if over.shape[1]:
        style = {"marker": "o", "markersize": 3, "color": series_colour(0)}
        axes.plot(epochs, over.mean(1), label="mean over pairs", **style)
        axes.legend()
    return {"cosines": figure}


def _epoch_axes(rows: Sequence[Row], ylabel: str) -> tuple[Figure, Axes, list[int]]:
    figure = Figure(figsize=(4.5, 3.3))
    axes = figure.subplots()
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.locator_params(axis="x", integer=True)
    return figure, axes, [int(row.variant.epoch) for row in rows]


def results_of(row: Row, part: str) -> list[Result]:
    """Return the results of a part, one per seed."""
    return [Result.read(run.folder / RESULTS_FILE) for run in row.runs if run.part == part]


def pair_cosines(row: Row, part: str) -> np.ndarray:
    """Return the cosine of each pair of templates (M (M - 1) / 2,), mean over seeds."""
    means = np.mean([r.details["template_cosines"] for r in results_of(row, part)], axis=0)
    return means[np.triu_indices(len(means), k=1)]


def uncertainties(rows: Sequence[Row], split: str) -> dict[str, Figure]:
    """Draw the distribution of the uncertainty of right, wrong and new-class images."""
    figure = Figure(figsize=(4.5, 3.4))
    draw_panels(figure, histogram_panels(uncertainty_groups(rows[0], split)))
    return {"uncertainty": figure}


def uncertainty_groups(row: Row, split: str) -> dict[str, np.ndarray]:
    """Return the uncertainty (N,) of images by how they were classified, over all seeds."""
    groups: dict[str, list[np.ndarray]] = {"base, right": [], "base, wrong": [], "new classes": []}
    for run in row.runs:
        if run.part in (f"{split}_base", f"{split}_new"):
            tested = Predictions.read(run.folder / PREDICTIONS_FILE)
            values = tested.uncertainty()
            right = tested.arrays["prediction"] == tested.arrays["label"]
            if run.part.endswith("_base"):
                groups["base, right"].append(values[right])
                groups["base, wrong"].append(values[~right])
            else:
                groups["new classes"].append(values)
    return {name: np.concatenate(parts) for name, parts in groups.items()}
