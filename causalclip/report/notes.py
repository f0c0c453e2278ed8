"""Notes below the tables: what a reader must know before trusting a mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import pandas as pd

from causalclip.records.identity import read_zero_shot
from causalclip.records.json_types import fits
from causalclip.records.results import PROTOCOL_TITLES
from causalclip.report.published_figures import load_figures
from causalclip.report.runs import SAME_BUT_SEED

COLLAPSE = 10.0
"""Points of accuracy below the best seed that make a run suspect."""
PAIR = ["method", "backbone", "config", "dataset", "shots", "seed"]
"""Columns that both halves of a base-to-novel run share."""


def warnings(runs: pd.DataFrame) -> list[str]:
    """Return a line for each problem of the runs, such as a collapsed seed or a missing half.

    A run is compared with the best of its seeds, not the median, because two of three may collapse.
    """
    every = runs[(runs.variant == "") & (runs.protocol != "")]
    own = every[every.counted]
    own = own.assign(best=own.groupby(SAME_BUT_SEED)["accuracy"].transform("max"))
    lines = [
        f"{run.path.parent}: accuracy {run.accuracy:.1f} is more than {COLLAPSE:.0f} points below "
        f"the best of its seeds, {run.best:.1f}: collapsed?"
        for _, run in own[own.accuracy < own.best - COLLAPSE].iterrows()
    ]
    halves = own[own.protocol == "base2new"]
    unpaired = halves[halves.groupby(PAIR)["subsample"].transform("nunique") < 2]
    for _, run in unpaired.iterrows():
        other = "new" if run.subsample == "base" else "base"
        setting = f" with {run.setting}" if run.setting else ""
        lines.append(f"{run.path.parent}: no result on the {other} classes{setting}, left out")
    lines += [
        f"{run.path.parent}: a newer run of the same method, data and seed counts"
        for _, run in every[~every.counted].iterrows()
    ]
    lines += _unknown_classes(own)
    return lines + [
        f"{rows.path.iloc[0].parent} and {other.path.iloc[0].parent}: tested on other images of "
        f"{dataset}, so they cannot be compared"
        for (dataset, _, _), rows in own.groupby(["dataset", "subsample", "domain"], sort=False)
        if len(other := rows[rows.tested.notna() & (rows.tested != rows.tested.iloc[0])])
        and rows.tested.iloc[0]
    ]


def _unknown_classes(runs: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each data set and half on which CLIP's zero-shot accuracy is near chance."""
    for (dataset, half, backbone), rows in runs.groupby(
        ["dataset", "subsample", "backbone"], sort=False
    ):
        zero_shot = read_zero_shot(rows.path.iloc[0].parent)
        if zero_shot and zero_shot.warning:
            yield f"{dataset}, {half} classes, {backbone}: {zero_shot.warning}"


def too_few_pairs(comparison: pd.DataFrame) -> list[str]:
    """Return a line for each comparison that has too few pairs to be significant."""
    return [
        f"{row.protocol}, {row.quantity}, {row.pairs}: with {row.wins + row.losses} pairs that "
        f"differ, p cannot be below {row['smallest p']:.2g}"
        for _, row in comparison[comparison["smallest p"] > 0.05].iterrows()
    ]


def without_published_figures(scores: pd.DataFrame) -> list[str]:
    """Return a line for each method and protocol without a published figure on file."""
    return [
        f"no published figures of {trainer} for {PROTOCOL_TITLES[protocol].lower()}"
        for protocol, trainer in dict.fromkeys(zip(scores.protocol, scores.trainer, strict=True))
        if trainer not in load_figures(protocol)
    ]


def subspace_notes(runs: pd.DataFrame) -> list[str]:
    """Return lines on CLIP-ICM's subspaces for each method, data set and reading.

    They state how many runs keep the plain features, the angles of resampled subspaces, and the
    runs whose subspace is not determined. Runs without a gain or a bootstrap have no line.
    """
    has_heads = pd.Series([bool(icm_heads(d)) for d in runs["details"]], index=runs.index)
    own = runs[(runs.variant == "") & runs.trains & has_heads]
    return [
        f"{method} on {dataset}, {name}: {note}"
        for (method, dataset), part in own.groupby(["method", "dataset"], sort=False)
        for name in icm_heads(part.details.iloc[0])
        for note in _head_notes(part, name)
    ]


class _Choice(TypedDict):
    dim_inv: int


class _Subspace(TypedDict):
    choice: _Choice
    spectrum: list[float | None]


def icm_heads(details: Mapping[str, Any], form: Any = _Subspace) -> dict[str, dict[str, Any]]:
    """Return CLIP-ICM's subspaces in `details` by reading: those that fit the TypedDict `form`."""
    heads = details.get("heads")
    heads = heads if isinstance(heads, dict) else {}
    return {name: head for name, head in heads.items() if fits(head, form)}


def _head_notes(runs: pd.DataFrame, name: str) -> Iterator[str]:
    heads = {
        str(path.parent): icm_heads(details)[name]
        for path, details in zip(runs.path, runs.details, strict=True)
        if name in icm_heads(details)
    }
    weighed = [head for head in heads.values() if "gain" in head]
    if plain := [head for head in weighed if _keeps_all(head)]:
        yield f"plain features stay in {len(plain)} of {len(weighed)} runs"
    drawn = {folder: head for folder, head in heads.items() if "certainty" in head}
    if reduced := [head for head in drawn.values() if not _keeps_all(head)]:
        dims = sorted({head["choice"]["dim_inv"] for head in reduced})
        k = f"{dims[0]} to {dims[-1]}" if len(dims) > 1 else f"{dims[0]}"
        angle = max(head["certainty"]["angle_95"] for head in reduced)
        widest = f", the widest of {len(reduced)} runs" if len(reduced) > 1 else ""
        yield f"k = {k}: 95 % of angles below {angle:.0f} degrees{widest}"
    if unsure := [f for f, head in drawn.items() if not head["certainty"]["determined"]]:
        yield f"warning: the subspace is not determined in {', '.join(unsure)}"


def _keeps_all(head: Mapping[str, Any]) -> bool:
    return head["choice"]["dim_inv"] == len(head["spectrum"])
