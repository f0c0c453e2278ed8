"""Columns of the tables for the cost of trainings and tests."""

from __future__ import annotations

from typing import Any

import pandas as pd

from causalclip.report.tables import TitledTables

LEARNABLE, TRAINING, TRAINED, MEMORY, STEP, TESTED = (
    "learnable", "training s", "trained images/s", "memory MiB", "GFLOPs a step", "tested images/s"
)  # fmt: skip
COST_COLUMNS = (LEARNABLE, TRAINING, TRAINED, MEMORY, STEP, TESTED)


def run_costs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the protocol, the method and `COST_COLUMNS` of each result that counts.

    A test has no cost of a training. Of a resumed training seconds and images are from there on.

    Args:
        runs: as `load_runs` returns them.
    """
    own = runs[runs.counted & (runs.variant == "")]
    rows = [
        (row.protocol, row.method, *_of_training(row.training), _rate(row.evaluation))
        for row in list[Any](own.itertuples())
    ]
    frame = pd.DataFrame(rows, columns=["protocol", "method", *COST_COLUMNS])
    return frame.astype(dict.fromkeys(COST_COLUMNS, float))


def _of_training(cost: dict) -> tuple:
    images = (cost.get("images") or 0) * (cost.get("epochs") or 1)
    rate = _rate({"images": images, "seconds": cost.get("seconds")})
    numbers = (cost.get(key) for key in ("learnable_parameters", "seconds", "peak_memory_mb"))
    learnable, seconds, memory = numbers
    flops = cost.get("step_flops")
    return learnable, seconds, rate, memory, None if flops is None else flops / 1e9


def _rate(cost: dict) -> float | None:
    return cost["images"] / cost["seconds"] if cost.get("images") and cost.get("seconds") else None


def with_costs(tables: TitledTables, runs: pd.DataFrame) -> TitledTables:
    """Return tables with each method's mean costs over the runs, in columns of their own."""
    means = run_costs(runs).groupby("method")[[*COST_COLUMNS]].mean()
    joined = []
    for title, table in tables:
        wide = table.join(means, on="method") if "method" in table else table
        wide.attrs = table.attrs
        joined.append((title, wide))
    return joined
