"""What several seeds say together: mean, spread, interval, collapsed runs, paired comparison."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from causalclip.report.runs import SAME_BUT_SEED

FAR = 10.0  # points of accuracy below the best seed that make a run suspect


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores of one table as one row a method and, for each quantity, three columns.

    Mean; "sd", the population standard deviation (as the family's parse_test_res.py); "ci95", half
    the width of the 95 % interval by Student's t with n - 1 degrees of freedom, NaN for one seed.
    """
    groups = rows.groupby(["method", "quantity"], sort=False)["value"]
    counts = groups.size().unstack()
    methods = list(dict.fromkeys(rows["method"]))
    out = pd.DataFrame({"method": methods, "seeds": [seeds_of(counts.loc[m]) for m in methods]})
    for quantity in dict.fromkeys(rows["quantity"]):
        values = [rows_of(groups, (method, quantity)) for method in methods]
        out[quantity] = [v.mean() if len(v) else np.nan for v in values]
        out[f"{quantity} sd"] = [v.std() if len(v) else np.nan for v in values]
        out[f"{quantity} ci95"] = [half_width(v) for v in values]
    return out


def seeds_of(counts: pd.Series) -> int | str:
    """How many seeds a row has; "2-3" where its columns differ."""
    low, high = int(counts.min()), int(counts.max())
    return low if low == high else f"{low}-{high}"


def rows_of(groups: Any, key: tuple[str, str]) -> np.ndarray:
    """The values of one group, none if there is no such group."""
    return groups.get_group(key).to_numpy() if key in groups.groups else np.empty(0)


def half_width(values: np.ndarray, *, level: float = 0.95) -> float:
    """t s / sqrt(n), s the sample standard deviation: half of the interval of the mean."""
    n = len(values)
    if n < 2:
        return np.nan
    t = stats.t.ppf((1 + level) / 2, n - 1)
    return float(t * values.std(ddof=1) / np.sqrt(n))


def collapsed(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs more than FAR points below the best seed of the same method, data and classes.

    Below the best and not the median: of three seeds, two may have collapsed.
    """
    mine = runs[runs.variant == ""].copy()
    mine["accuracy"] = [metrics["accuracy"] for metrics in mine.metrics]
    mine["best"] = mine.groupby(SAME_BUT_SEED)["accuracy"].transform("max")
    return mine[mine.accuracy < mine.best - FAR]


def repeated(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs that stand for one and the same method, data, classes and seed."""
    mine = runs[(runs.variant == "") & (runs.protocol != "")]
    return mine[mine.duplicated([*SAME_BUT_SEED, "seed"], keep=False)]


# Two methods


def compare(scores: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Paired differences, first minus second, of every protocol and compared quantity.

    One row over pairs of (data set, shots, seed), one over data sets (means over seeds), because
    seeds of one data set are not independent; p of the two-sided Wilcoxon signed-rank test.
    """
    known = list(dict.fromkeys(scores["method"]))
    for name in (first, second):
        if name not in known:
            raise ValueError(f"unknown method {name!r}; the runs hold: {'; '.join(known)}")
    place = ["protocol", "compared", "table", "dataset", "quantity"]
    rows = scores[(scores["compared"] != "") & scores["method"].isin([first, second])]
    wide = rows.pivot_table(index=[*place, "seed"], columns="method", values="value", sort=False)
    if first == second or len(wide.columns) < 2 or wide.dropna().empty:
        raise ValueError(f"{first} and {second} have no result in common to compare")
    difference = (wide[first] - wide[second]).dropna().rename("difference")
    found = []
    for _, part in difference.groupby(level=[0, 1], sort=False):
        protocol, quantity, *_ = part.index[0]
        means = part.groupby(level=place, sort=False).mean()
        for pairs, values in (("every seed", part), ("data sets", means)):
            row = {"protocol": protocol, "quantity": quantity, "pairs": pairs}
            found.append({**row, **signed_rank(values.to_numpy().round(9))})  # 1e-9: rounding
    return pd.DataFrame(found)


def signed_rank(differences: np.ndarray) -> dict[str, float]:
    """Counts, mean difference, p, and the smallest p that so many untied pairs can give."""
    nonzero = differences[differences != 0]
    p = cast(Any, stats.wilcoxon(nonzero)).pvalue if len(nonzero) else 1.0
    return {
        "n": len(differences),
        "wins": int((differences > 0).sum()),
        "ties": int((differences == 0).sum()),
        "losses": int((differences < 0).sum()),
        "mean difference": float(differences.mean()),
        "p": float(p),
        "smallest p": min(1.0, 2.0 ** (1 - len(nonzero))),
    }
