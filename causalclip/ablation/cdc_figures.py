"""CDC's figures: accuracy and cosines over epochs, and how uncertain it is of what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from causalclip.ablation.planning import Row
from causalclip.ablation.reporting import by_seed
from causalclip.report.predictions import PREDICTIONS_FILE, Predictions
from causalclip.report.results import RESULTS_FILE, Result
from causalclip.runs.plan import Run

Figures = dict[str, Figure]


def over_epochs(rows: Sequence[Row], split: str) -> Figures:
    """Accuracy on base and on new classes after every epoch: mean and deviation over seeds."""
    figure, axes = plt.subplots(figsize=(4.5, 3.2))
    epochs = [int(row.variant.epoch) for row in rows]
    for half in ("base", "new"):
        values = [accuracies(row, f"{split}_{half}") for row in rows]
        mean, sd = (np.array([f(v) for v in values]) for f in (np.mean, np.std))
        (line,) = axes.plot(epochs, mean, label=f"{half} classes")
        axes.fill_between(epochs, mean - sd, mean + sd, color=line.get_color(), alpha=0.2, lw=0)
    axes.set(xlabel="epoch", ylabel="accuracy (%)")
    axes.locator_params(axis="x", integer=True)
    axes.legend()
    return {"epochs": figure}


def accuracies(row: Row, part: str) -> list[float]:
    """The accuracy of each seed's test of a part, per cent."""
    return [result.metrics["accuracy"] for result in results(row, part)]


def results(row: Row, part: str) -> list[Result]:
    """Each seed's result of a part."""
    return [Result.read(run.folder / RESULTS_FILE) for run in row.runs if run.part == part]


def template_cosines(rows: Sequence[Row], split: str) -> Figures:
    """Mean cosine between the class texts of two templates after every epoch, a line a pair."""
    figure, axes = plt.subplots(figsize=(4.5, 3.2))
    epochs = [int(row.variant.epoch) for row in rows]
    over = np.stack([cosines(row, f"{split}_base") for row in rows])  # (E, pairs)
    for pair, values in enumerate(over.T):
        axes.plot(epochs, values, color="0.7", lw=0.8, label="a pair" if not pair else None)
    if over.shape[1]:
        axes.plot(epochs, over.mean(1), marker="o", markersize=3, label="mean over pairs")
        axes.legend()
    axes.set(xlabel="epoch", ylabel="cosine between templates")
    axes.locator_params(axis="x", integer=True)
    return {"cosines": figure}


def cosines(row: Row, part: str) -> np.ndarray:
    """Mean over seeds of the cosine of each pair of templates (M (M - 1) / 2,)."""
    found = np.mean([r.details["template_cosines"] for r in results(row, part)], axis=0)
    return found[np.triu_indices(len(found), k=1)]


def uncertainties(rows: Sequence[Row], split: str) -> Figures:
    """Distribution of the uncertainty of right, wrong and new-class images, seeds together."""
    figure, axes = plt.subplots(figsize=(4.5, 3.4))
    groups = uncertainty_groups(rows[0], split)
    low = min(values.min() for values in groups.values() if len(values))
    bins = np.linspace(min(np.log10(low), -1), 0, 25).tolist()
    for name, values in groups.items():
        how = {"label": f"{name} ({len(values)})", "histtype": "step", "lw": 1.5}
        weights = np.full(len(values), 100 / max(len(values), 1))
        axes.hist(np.log10(values), bins=bins, weights=weights, **how)
    axes.set(xlabel="log10 of the uncertainty", ylabel="images of the group (%)")
    figure.legend(loc="outside lower center", ncols=len(groups), fontsize="small")
    return {"uncertainty": figure}


def uncertainty_groups(row: Row, split: str) -> dict[str, np.ndarray]:
    """The uncertainty of each image, by what became of it; all seeds in one array (N,)."""
    groups: dict[str, list[np.ndarray]] = {"base, right": [], "base, wrong": [], "new classes": []}
    for runs in by_seed(row.runs).values():
        of = {run.part: predicted(run) for run in runs}
        base, new = of[f"{split}_base"], of[f"{split}_new"]
        right = base.arrays["prediction"] == base.arrays["label"]
        groups["base, right"].append(base.uncertainty()[right])
        groups["base, wrong"].append(base.uncertainty()[~right])
        groups["new classes"].append(new.uncertainty())
    joined = {name: np.concatenate(parts) for name, parts in groups.items()}
    # A softmax rounds to certainty, which has no logarithm: shown with the least there is.
    least = min((v[v > 0].min() for v in joined.values() if (v > 0).any()), default=1.0)
    return {name: values.clip(least) for name, values in joined.items()}


def predicted(run: Run) -> Predictions:
    """What a test has answered about each image."""
    return Predictions.read(run.folder / PREDICTIONS_FILE)
