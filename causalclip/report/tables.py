"""Runs as scores: what each protocol measures, one number a row.

A score is one quantity of one method, data set and seed; its column `table` says which table it
stands in and `quantity` in which column. What is compared between methods has a name in `compared`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import hmean

from causalclip.metrics import novelty_auroc
from causalclip.report.groups import by_name
from causalclip.report.predictions import PREDICTIONS_FILE, Predictions
from causalclip.report.protocols import PROTOCOLS, VARIANTS

# The order of the papers' tables.
TARGETS = (
    "Caltech101",
    "OxfordPets",
    "StanfordCars",
    "OxfordFlowers",
    "Food101",
    "FGVCAircraft",
    "SUN397",
    "DescribableTextures",
    "EuroSAT",
    "UCF101",
    *VARIANTS,
)
METHOD = ["method", "trainer", "variant", "backbone"]
SCORE = ["protocol", "table", *METHOD, "dataset", "shots", "seed", "quantity", "value", "compared"]
BASE_TO_NOVEL = ["base", "new", "HM", "ECE base", "ECE new", "AUROC", "train s"]


def scores(
    runs: pd.DataFrame, *, heldout: bool = False, without: Set[Path] = frozenset()
) -> pd.DataFrame:
    """Every protocol's scores.

    Args:
        runs: as `load_runs` gives them.
        heldout: reads domains from the held-out part of the target.
        without: results.json files that have no predictions to read: there is no AUROC of theirs.
    """
    sections: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
        "base2new": partial(base_to_novel, without=without),
        "xd": partial(across, protocol="xd"),
        "dg": partial(across, protocol="dg"),
        "fewshot": few_shot,
        "lodo": partial(leave_one_out, heldout=heldout),
        "openclass": open_class,
    }
    there = [section(runs) for name, section in sections.items() if (runs.protocol == name).any()]
    return stacked(there)


def stacked(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Parts that hold scores, one below the other."""
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True)[SCORE] if parts else pd.DataFrame(columns=SCORE)


def as_scores(
    rows: pd.DataFrame, protocol: str, columns: Sequence[str], compare: dict[str, str]
) -> pd.DataFrame:
    """Rows with one column a quantity as scores; what has no value is left out."""
    keep = [name for name in SCORE if name in rows.columns]
    long = rows.melt(
        id_vars=keep, value_vars=list(columns), var_name="quantity", value_name="value"
    )
    long["protocol"] = protocol
    long["compared"] = long["quantity"].map(compare).fillna("")
    return long.dropna(subset="value")[SCORE]


def titled(protocol: str, subject: str, shots: int) -> str:
    """Title of a table; a negative number of shots is all images."""
    return f"{PROTOCOLS[protocol]}: {subject}" + (f", {shots_name(shots)}" if shots > 0 else "")


def titles(rows: pd.DataFrame, protocol: str, subject: str = "dataset") -> list[str]:
    """The table of each row."""
    return [titled(protocol, s, k) for s, k in zip(rows[subject], rows["shots"], strict=True)]


# Base-to-novel


def base_to_novel(runs: pd.DataFrame, *, without: Set[Path] = frozenset()) -> pd.DataFrame:
    """Base, new, HM, calibration errors and base-against-new AUROC of each pair of runs."""
    mine = runs[runs.protocol == "base2new"]
    keys = [*METHOD, "config", "dataset", "shots", "seed"]
    halves = [mine[mine.subsample == half] for half in ("base", "new")]
    rows = halves[0].merge(halves[1], on=keys, suffixes=("_base", "_new"))
    for half in ("base", "new"):
        rows[half] = [metrics["accuracy"] for metrics in rows[f"metrics_{half}"]]
        rows[f"ECE {half}"] = [metrics["ece"] for metrics in rows[f"metrics_{half}"]]
    rows["HM"] = hmean(rows[["base", "new"]], axis=1)
    rows["AUROC"] = [
        np.nan if without & {row["path_base"], row["path_new"]} else detection(row)
        for _, row in rows.iterrows()
    ]
    rows["train s"] = rows["seconds_base"]
    rows["table"] = titles(rows, "base2new")
    compare = {name: name for name in ("base", "new", "HM")}
    return as_scores(rows, "base2new", BASE_TO_NOVEL, compare)


def detection(pair: pd.Series) -> float:
    """AUROC of new against base test images by uncertainty, per cent."""
    base, new = (
        Predictions.read(path.with_name(PREDICTIONS_FILE)).uncertainty(pair["variant"])
        for path in (pair["path_base"], pair["path_new"])
    )
    return novelty_auroc(base, new)


def average_over_datasets(rows: pd.DataFrame) -> pd.DataFrame:
    """Per method the mean over data sets of the means over seeds; HM both ways, each named."""
    index = ["shots", "method", "dataset"]
    per_set = rows[rows.quantity != "train s"].pivot_table(
        index=index, columns="quantity", values="value", sort=False
    )
    groups = per_set.groupby(["shots", "method"], sort=False)
    average = groups.mean().rename(columns={"HM": "average of HMs"})
    average.insert(2, "HM of averages", hmean(average[["base", "new"]], axis=1))
    average.insert(0, "data sets", groups.size())
    return average.reset_index()


# One source, other data sets


def across(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Accuracy on the source and on each target of what was trained on the source.

    The average is of the targets, and only where a seed has all that the table has.
    """
    said = runs.protocol == protocol
    mine = runs[said & ~runs.trains].copy()
    mine["quantity"], mine["compared"] = mine.dataset, "target accuracy"
    # One training serves both protocols, and one that says none has been taken for few-shot.
    trained = runs[runs.trains & runs.protocol.isin(["xd", "dg", "fewshot"])]
    used = pd.concat([mine, runs[said & runs.trains]])[SOURCE_RUN]
    at_source = trained.merge(used.drop_duplicates(), on=SOURCE_RUN)
    at_source["quantity"], at_source["compared"] = at_source.dataset + " (source)", ""
    both = pd.concat([at_source, mine], ignore_index=True)
    both["protocol"], both["value"] = protocol, accuracies(both)
    both["table"] = titles(both.assign(subject="from " + both.source), protocol, "subject")
    order = {name: place for place, name in enumerate(TARGETS, start=1)}
    both["place"] = [
        order.get(name, len(TARGETS) + 1) if compared else 0  # the source comes first
        for name, compared in zip(both.quantity, both.compared, strict=True)
    ]
    both = both.sort_values(["place", "quantity"], kind="stable")[SCORE]
    targets = both[both.compared != ""]
    return stacked([both, averaged(targets, "average", "quantity", mean)])


SOURCE_RUN = ["trainer", "variant", "config", "setting", "backbone", "source", "shots", "seed"]


def accuracies(runs: pd.DataFrame) -> list[float]:
    """The accuracy of each run, per cent."""
    return [metrics["accuracy"] for metrics in runs.metrics]


def averaged(
    rows: pd.DataFrame, name: str, over: str, reduce: Callable[[pd.DataFrame], pd.Series]
) -> pd.DataFrame:
    """A further quantity of each table: `reduce` over the values of the column `over`.

    Only of the seeds of a method that have all of the table's values.
    """
    found = []
    for table, part in by_name(rows, "table"):
        index = ["protocol", *METHOD, "shots", "seed"]
        wide = part.pivot_table(index=index, columns=over, values="value", sort=False).dropna()
        if wide.empty:
            continue
        out = reduce(wide).rename("value").reset_index()
        datasets = part["dataset"].unique()
        found.append(
            out.assign(
                table=table,
                quantity=name,
                compared="",
                dataset=datasets[0] if len(datasets) == 1 else "average",
            )
        )
    return stacked(found)


mean = partial(pd.DataFrame.mean, axis=1)
worst = partial(pd.DataFrame.min, axis=1)


# Few-shot


def few_shot(runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of all classes by the number of training images a class, and over data sets."""
    mine = runs[(runs.protocol == "fewshot") & ~only_a_source(runs)].copy()
    mine = mine.sort_values("shots", key=lambda s: s.where(s > 0, np.inf), kind="stable")
    mine["quantity"] = [shots_name(shots) for shots in mine.shots]
    mine["value"], mine["compared"] = accuracies(mine), "accuracy"
    subjects = [part_of_dataset(run) for _, run in mine.iterrows()]
    mine["dataset"] = pd.Series(subjects, index=mine.index, dtype=object)  # text, none of them too
    mine["table"] = "Few-shot: " + mine.dataset
    rows = mine.sort_values("dataset", kind="stable")[SCORE]
    count = rows.dataset.nunique()
    if count < 2:
        return rows
    named = rows.assign(table=f"Few-shot: average over {count} data sets")
    means = [
        averaged(part, name, "dataset", mean)
        for name, part in by_name(named, "quantity")
        if part.dataset.nunique() == count
    ]
    return stacked([rows, *means])


def part_of_dataset(run: pd.Series) -> str:
    """The data set of a run, with the domain and the half of its classes where it is not all."""
    half = "" if run.subsample == "all" else f"{run.subsample} classes"
    return ", ".join(filter(None, [run.dataset, run.domain, half]))


def shots_name(shots: int) -> str:
    """Column of a number of images a class."""
    return "all images" if shots < 1 else "1 shot" if shots == 1 else f"{shots} shots"


def only_a_source(runs: pd.DataFrame) -> pd.Series:
    """Which runs are there because something else was evaluated with them."""
    is_cross = runs.protocol.isin(["xd", "dg"]) & ~runs.trains
    sources = set(map(tuple, runs.loc[is_cross, SOURCE_RUN].to_numpy()))
    used = [tuple(row) in sources for row in runs[SOURCE_RUN].to_numpy()]
    used = pd.Series(used, index=runs.index, dtype=bool) & (runs.protocol == "fewshot")
    return used.groupby([runs.protocol, runs.method, runs.dataset]).transform("all")


# Domains


def leave_one_out(runs: pd.DataFrame, *, heldout: bool = False) -> pd.DataFrame:
    """Accuracy on each target domain, their average and their worst."""
    mine = runs[runs.protocol == "lodo"].copy()
    if heldout:
        mine = mine[["heldout" in parts for parts in mine.parts]]
        mine["metrics"] = [parts["heldout"] for parts in mine.parts]
    mine["quantity"], mine["compared"] = mine.domain, "target accuracy"
    mine["value"], mine["table"] = accuracies(mine), titles(mine, "lodo")
    rows = mine[SCORE]
    average = averaged(rows, "average", "quantity", mean)
    lowest = averaged(rows, "worst", "quantity", worst)
    return stacked([rows, average, lowest, over_domain_sets(average)])


def over_domain_sets(average: pd.DataFrame) -> pd.DataFrame:
    """One more table where several data sets were run: their averages side by side."""
    if average.dataset.nunique() < 2:
        return average.iloc[:0]
    rows = average.assign(quantity=average.dataset)
    rows["table"] = titles(rows.assign(subject="all data sets"), "lodo", "subject")
    return stacked([rows, averaged(rows, "average", "quantity", mean)])


def open_class(runs: pd.DataFrame) -> pd.DataFrame:
    """Base and open classes of the targets, averaged over targets, and the HM of the averages.

    Only of seeds that have every target.
    """
    mine = runs[runs.protocol == "openclass"]
    mine = mine[[{"base", "open"} <= set(parts) for parts in mine.parts]].copy()
    for part in ("base", "open"):
        mine[part] = [parts[part]["accuracy"] for parts in mine.parts]
    mine["all"], mine["table"] = accuracies(mine), titles(mine, "openclass")
    targets = mine.groupby("table")["domain"].nunique()
    groups = mine.groupby(["table", *METHOD, "dataset", "shots", "seed"], sort=False)
    rows = groups[["base", "open", "all"]].mean().assign(targets=groups["domain"].nunique())
    rows = rows.reset_index()
    rows = rows[rows.targets == rows.table.map(targets)]
    rows["HM"] = hmean(rows[["base", "open"]], axis=1)
    compare = {name: name for name in ("base", "open", "HM")}
    return as_scores(rows, "openclass", ["base", "open", "all", "HM"], compare)
