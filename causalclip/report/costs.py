"""Table columns with the costs of trainings and tests."""

from __future__ import annotations

from typing import Any

import pandas as pd

from causalclip.report.tables import TitledTables

LEARNABLE, TRAINING, TRAINED, MEMORY, STEP, TESTED = (
    "learnable", "training s", "trained images/s", "memory MiB", "GFLOPs a step", "tested images/s"
)  # fmt: skip
COST_COLUMNS = (LEARNABLE, TRAINING, TRAINED, MEMORY, STEP, TESTED)


def run_costs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of protocol, method and `COST_COLUMNS`, with a row per result that counts.

    A test has no training costs. A resumed training counts from where it was resumed.

    Args:
        runs: the table that `load_runs` returns.
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
    """Return the tables with additional columns: each method's mean costs over the runs."""
    means = run_costs(runs).groupby("method")[[*COST_COLUMNS]].mean()
    joined = []
    for title, table in tables:
        wide = table.join(means, on="method") if "method" in table else table
        wide.attrs = table.attrs
        joined.append((title, wide))
    return joined
