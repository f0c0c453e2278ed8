"""What a leave-one-domain-out row is measured by: on its sources left out, or on its targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from causalclip.icm.selection import Choice, Scored, best
from causalclip.report.results import RESULTS_FILE, Result
from causalclip.runs.plan import Run

HEADS = {"zero-shot": "zeroshot", "probe": "linear_probe"}
PLAIN = "plain"  # the reading of the features as they are


def quantities(runs: Sequence[Run], reading: str, split: str) -> dict[str, float]:
    """The quantities of one seed by name, over its target domains: means, and the worst.

    Args:
        runs: one for each domain that was left out.
        reading: `plain` for the features as they are, empty for the subspace.
        split: val for the sources alone, test for the targets.
    """
    results = [Result.read(run.folder / RESULTS_FILE) for run in runs]
    found: dict[str, float] = {}
    for name, head in HEADS.items():
        known = [accuracy(result, head, reading, split) for result in results]
        accuracies = [value for value in known if value is not None]
        if len(accuracies) < len(results):  # not fitted, or no grid that has it
            continue
        worst = "worst" if name == "zero-shot" else f"{name} worst"
        found[name], found[worst] = float(np.mean(accuracies)), float(np.min(accuracies))
        if reading != PLAIN:
            dims = [heads_of(result)[head]["choice"]["dim_inv"] for result in results]
            found["k" if name == "zero-shot" else f"k {name}"] = float(np.mean(dims))
    if reading != PLAIN:
        kept = [heads_of(result)["zeroshot"]["intervention_energy_kept"] for result in results]
        found["change kept %"] = 100 * float(np.mean(kept))
    return found


def accuracy(result: Result, head: str, reading: str, split: str) -> float | None:
    """Accuracy of a head in per cent; None where the run does not know it."""
    if split == "test":
        name = head if reading == PLAIN else f"{head}_icm"
        return result.variants.get(name, {}).get("accuracy")
    scored = grid(heads_of(result).get(head, {}))
    if reading == PLAIN:
        return next((cell.mean for cell in scored if is_plain(cell.choice, result)), None)
    return left_out(scored) if scored else None


def left_out(scored: Sequence[Scored]) -> float:
    """Mean accuracy on each fold of the cell that the other folds choose, per cent.

    A cell's own mean is higher for having been chosen by it.
    """
    folds = range(len(scored[0].accuracies))
    if len(folds) < 2:
        raise ValueError("one fold cannot be left out of the choice")
    told = []
    for held in folds:
        others = [fold for fold in folds if fold != held]
        parts = {cell.choice: [cell.accuracies[fold] for fold in others] for cell in scored}
        taken = best([Scored(choice, tuple(part)) for choice, part in parts.items()]).choice
        told.append(next(cell.accuracies[held] for cell in scored if cell.choice == taken))
    return float(np.mean(told))


def heads_of(result: Result) -> Mapping[str, Any]:
    """What was found for each head."""
    return result.details["heads"]


def grid(head: Mapping[str, Any]) -> list[Scored]:
    """The cells that a head was chosen from, with their accuracies on each source left out."""
    return [scored_cell(record) for record in head.get("grid", [])]


def scored_cell(record: Mapping[str, Any]) -> Scored:
    """A cell of results.json."""
    return Scored(choice_of(record), tuple(record["accuracies"]))


def choice_of(record: Mapping[str, Any]) -> Choice:
    """The cell that a record names."""
    names = ("estimator", "strength", "dim_inv", "orthonormal")
    return Choice(**{name: record[name] for name in names})


def is_plain(choice: Choice, result: Result) -> bool:
    """Whether a cell keeps the features as they are: all dimensions, in an orthonormal basis."""
    width = len(next(iter(heads_of(result).values()))["spectrum"])
    return choice.dim_inv == width and choice.orthonormal
