"""What CLIP-ICM's runs say of their subspaces, to be read beside a table of accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

Heads = Sequence[tuple[Path, Mapping[str, Any]]]
"""Of one reading: the folder of each run, and what its details say of the subspace."""


def subspaces(runs: pd.DataFrame) -> list[str]:
    """A line for each method, data set and reading: who stays plain, how sure the others are.

    Nothing where the runs have neither weighed a gain nor drawn a bootstrap.
    """
    found = runs.details.map(lambda details: bool(details.get("heads")))
    own = runs[(runs.variant == "") & runs.trains & found]
    said = []
    for (method, dataset), part in own.groupby(["method", "dataset"], sort=False):
        for name in part.details.iloc[0]["heads"]:
            heads = [
                (path.parent, details["heads"][name])
                for path, details in zip(part.path, part.details, strict=True)
                if name in details["heads"]
            ]
            facts = [*_stayed(heads), *_certain(heads), *_undetermined(heads)]
            said += [f"{method} on {dataset}, {name}: {fact}" for fact in facts]
    return said


def _stayed(heads: Heads) -> list[str]:
    """How many runs keep the plain features, of those that asked for a gain."""
    asked = [head for _, head in heads if "gain" in head]
    stay = [head for head in asked if _whole(head)]
    return [f"plain features stay in {len(stay)} of {len(asked)} runs"] if stay else []


def _certain(heads: Heads) -> list[str]:
    """The dimensions chosen and the widest of the runs' angles."""
    sure = [head for _, head in heads if "certainty" in head and not _whole(head)]
    if not sure:
        return []
    dims = sorted({head["choice"]["dim_inv"] for head in sure})
    k = f"{dims[0]} to {dims[-1]}" if len(dims) > 1 else f"{dims[0]}"
    angle = max(head["certainty"]["angle_95"] for head in sure)
    widest = f", the widest of {len(sure)} runs" if len(sure) > 1 else ""
    return [f"k = {k}: 95 % of angles below {angle:.0f} degrees{widest}"]


def _undetermined(heads: Heads) -> list[str]:
    """A warning that names the runs whose resamples do not agree on a subspace."""
    unsure = [
        str(folder)
        for folder, head in heads
        if "certainty" in head and not head["certainty"]["determined"]
    ]
    return [f"warning: the subspace is not determined in {', '.join(unsure)}"] if unsure else []


def _whole(head: Mapping[str, Any]) -> bool:
    """Whether every dimension is kept."""
    return head["choice"]["dim_inv"] == len(head["spectrum"])
