"""CLIP-ICM's ablation: its runs, and the quantities that a row is measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causalclip.icm.selection import Choice, Scored, best
from causalclip.records.results import RESULTS_FILE, Result
from causalclip.runs.plan import Run
from causalclip.runs.protocols import ALL_IMAGES, Part, Protocol

HEADS = {"zero-shot": "zeroshot", "probe": "linear_probe"}
PLAIN = "plain"
"""The reading of the features as they are."""


def protocol(_split: str) -> Protocol:
    """Return leave-one-domain-out; a run has the figures of both splits."""
    folder = "ablation/{method}/{dataset}/shots_{shots}/{target}/{recipe}/seed{seed}"
    parts = (Part("train", folder, ("DATASET.NUM_SHOTS", "{num_shots}")),)
    return Protocol("ablation", parts, shots=(ALL_IMAGES,), domains=True)


def quantities(runs: Sequence[Run], reading: str, split: str) -> dict[str, float]:
    """Return the quantities of one seed by name, over its target domains: means, and the worst.

    Args:
        runs: one for each domain that was left out.
        reading: `plain` for the features as they are, empty for the subspace.
        split: val for the sources alone, test for the targets.
    """
    results = [Result.read(run.folder / RESULTS_FILE) for run in runs]
    values: dict[str, float] = {}
    for name, head in HEADS.items():
        known = [head_accuracy(result, head, reading, split) for result in results]
        accuracies = [value for value in known if value is not None]
        if len(accuracies) < len(results):  # not fitted, or no grid that has it
            continue
        zeroshot = name == "zero-shot"
        values[name] = float(np.mean(accuracies))
        values["worst" if zeroshot else f"{name} worst"] = float(np.min(accuracies))
        if reading != PLAIN:
            dims = [heads_of(result)[head]["choice"]["dim_inv"] for result in results]
            values["k" if zeroshot else f"k {name}"] = float(np.mean(dims))
    if reading != PLAIN:
        kept = [heads_of(result)["zeroshot"]["intervention_energy_kept"] for result in results]
        values["change kept %"] = 100 * float(np.mean(kept))
    return values


def head_accuracy(result: Result, head: str, reading: str, split: str) -> float | None:
    """Return the accuracy of a head in per cent; None where the run does not have it."""
    if split == "test":
        name = head if reading == PLAIN else f"{head}_icm"
        return result.variants.get(name, {}).get("accuracy")
    grid = heads_of(result).get(head, {}).get("grid", [])
    scored = [Scored(choice_of(cell), tuple(cell["accuracies"])) for cell in grid]
    if reading != PLAIN:
        return left_out(scored) if scored else None
    width = len(next(iter(heads_of(result).values()))["spectrum"])
    whole = (c for c in scored if c.choice.dim_inv == width and c.choice.orthonormal)
    return next((cell.mean for cell in whole), None)


def left_out(scored: Sequence[Scored]) -> float:
    """Return the mean accuracy on each fold of the cell that the other folds choose, per cent.

    A cell's own mean is higher for having been chosen by it.

    Raises:
        ValueError: there is only one fold.
    """
    folds = range(len(scored[0].accuracies))
    if len(folds) < 2:
        raise ValueError("one fold cannot be left out of the choice")
    accuracies = []
    for fold in folds:
        others = [
            Scored(cell.choice, tuple(a for i, a in enumerate(cell.accuracies) if i != fold))
            for cell in scored
        ]
        chosen = best(others).choice
        accuracies.append(next(c.accuracies[fold] for c in scored if c.choice == chosen))
    return float(np.mean(accuracies))


def heads_of(result: Result) -> Mapping[str, Any]:
    """Return the subspace of each head."""
    return result.details["heads"]


def choice_of(record: Mapping[str, Any]) -> Choice:
    """Return the cell that a record of results.json names."""
    names = ("estimator", "strength", "dim_inv", "orthonormal")
    return Choice(**{name: record[name] for name in names})
