"""Statistics over seeds: mean, spread, confidence interval, paired comparison of two methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import scipy  # loads scipy.stats when it is used

from causalclip.records.results import PROTOCOL_TITLES


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of one table, with a row per method and three columns per quantity.

    These are the mean; "sd", the population standard deviation (as in CoOp's parse_test_res.py);
    "ci95", half the width of the 95 % interval by Student's t with n - 1 degrees of freedom, NaN
    for one seed.
    """
    groups = scores.groupby(["method", "quantity"], sort=False)["value"]
    values = {key: group.to_numpy() for key, group in groups}
    methods = list(dict.fromkeys(scores["method"]))
    counts = [{len(v) for (name, _), v in values.items() if name == m} for m in methods]
    seeds = [f"{min(c)}-{max(c)}" if len(c) > 1 else min(c) for c in counts]  # "2-3" if they differ
    table = pd.DataFrame({"method": methods, "seeds": seeds})
    for quantity in dict.fromkeys(scores["quantity"]):
        cells = [values.get((method, quantity), np.empty(0)) for method in methods]
        table[quantity] = [v.mean() if len(v) else np.nan for v in cells]
        table[f"{quantity} sd"] = [v.std() if len(v) else np.nan for v in cells]
        table[f"{quantity} ci95"] = [half_width(v) for v in cells]
    return table


def half_width(values: np.ndarray) -> float:
    """Return half of the 95 % interval of the mean of values (N,): t s / sqrt(n), s with n - 1."""
    n = len(values)
    if n < 2:
        return np.nan
    t = scipy.stats.t.ppf(0.975, n - 1)
    return float(t * values.std(ddof=1) / np.sqrt(n))


def compare_methods(scores: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return paired differences, first minus second, of every protocol and compared quantity.

    Each has a row over pairs of (data set, shots, seed) and one over data sets (means over seeds),
    because seeds of one data set are not independent. p: two-sided Wilcoxon signed-rank test.

    Raises:
        ValueError: a method that no run has, or two without a common result.
    """
    methods = list(dict.fromkeys(scores["method"]))
    for name in (first, second):
        if name not in methods:
            raise ValueError(f"unknown method {name!r}; the runs hold: {'; '.join(methods)}")
    place = ["protocol", "compared", "table", "dataset", "quantity"]
    rows = scores[(scores["compared"] != "") & scores["method"].isin([first, second])]
    wide = rows.pivot_table(index=[*place, "seed"], columns="method", values="value", sort=False)
    if first == second or len(wide.columns) < 2 or wide.dropna().empty:
        raise ValueError(f"{first} and {second} have no result in common to compare")
    differences = (wide[first] - wide[second]).dropna().rename("difference")
    tests = []
    for _, part in differences.groupby(level=[0, 1], sort=False):
        protocol, quantity, *_ = part.index[0]
        means = part.groupby(level=place, sort=False).mean()
        for pairs, values in (("every seed", part), ("data sets", means)):
            row = {"protocol": protocol, "quantity": quantity, "pairs": pairs}
            tests.append({**row, **signed_rank(values.to_numpy().round(9))})  # 1e-9: rounding
    return pd.DataFrame(tests)


def holm(p: Sequence[float]) -> list[float]:
    """Return m p-values with the correction for multiple tests of Holm (1979).

    The k-th smallest is multiplied by m - k + 1. It is at most 1 and at least the one before it.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    factors = np.arange(len(values), 0, -1)
    values[order] = np.minimum(1, np.maximum.accumulate(factors * values[order]))
    return values.tolist()


def main_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a score per protocol, method and seed by which a protocol's methods are compared.

    The score is HM, or the average over all data sets, domains and shots. It is missing if one of
    these is missing. Other readings of a method are left out. `quantity` is the protocol's title.
    """
    rows = scores[(scores.variant == "") & (scores.compared != "")]
    rows = rows[rows.compared == rows.groupby("protocol")["compared"].transform("last")]
    cells = rows[["table", "dataset", "quantity"]].astype(str).agg(" ".join, axis=1)
    counts = cells.groupby(rows.protocol).nunique()
    keys = ["protocol", "method", "seed"]
    means = rows.groupby(keys, sort=False)["value"].agg(["mean", "size"]).reset_index()
    means = means[means["size"] == means.protocol.map(counts)]
    return means.rename(columns={"mean": "value"}).assign(
        quantity=means.protocol.map(PROTOCOL_TITLES)
    )


def signed_rank(differences: np.ndarray) -> dict[str, float]:
    """Return counts, mean and p of the signed-rank test of differences (N,).

    `smallest p` is the smallest that this number of untied pairs can give.
    """
    nonzero = differences[differences != 0]
    p = cast(Any, scipy.stats.wilcoxon(nonzero)).pvalue if len(nonzero) else 1.0
    return {
        "n": len(differences),
        "wins": int((differences > 0).sum()),
        "ties": int((differences == 0).sum()),
        "losses": int((differences < 0).sum()),
        "mean difference": float(differences.mean()),
        "p": float(p),
        "smallest p": min(1.0, 2.0 ** (1 - len(nonzero))),
    }
