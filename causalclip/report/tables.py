"""Runs as scores, with one number per row, and scores as tables.

A score is one quantity of one method, data set and seed. Its column `table` is the title of its
table, and `quantity` is the column there. `compared` is the name under which methods are compared
by the quantity; it is empty if they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads scipy.stats when it is used

from causalclip.metrics import novelty_auroc
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.records.results import IMAGENET_VARIANTS, PROTOCOL_TITLES
from causalclip.report.runs import TEST_TIME
from causalclip.report.seeds import over_seeds

TitledTables = list[tuple[str, pd.DataFrame]]

# Data sets in the order of the papers' tables.
TARGETS = (
    *"Caltech101 OxfordPets StanfordCars OxfordFlowers Food101 FGVCAircraft SUN397".split(),
    *"DescribableTextures EuroSAT UCF101".split(),
    *IMAGENET_VARIANTS,
)
METHOD_KEYS = ["method", "trainer", "variant", "backbone"]
KEYS = ["protocol", "table", *METHOD_KEYS, "dataset", "shots", "seed"]
SCORE = [*KEYS, "quantity", "value", "compared"]
BASE_TO_NOVEL = ["base", "new", "HM", "ECE base", "ECE new", "AUROC", "train s"]
CONFORMAL = {
    "LAC coverage": "lac_coverage",
    "LAC size": "lac_size",
    "APS coverage": "aps_coverage",
    "APS size": "aps_size",
}
SOURCE_RUN = ["trainer", "variant", "config", "setting", "backbone", "source", "shots", "seed"]


def scores(
    runs: pd.DataFrame,
    *,
    heldout: bool = False,
    without: Set[Path] = frozenset(),
    sources: bool = False,
    problems: list[str] | None = None,
) -> pd.DataFrame:
    """Return the scores of every protocol, from the runs that count.

    Scores of a method that has used the test images (`TEST_TIME`) are not compared.

    Args:
        runs: the table that `load_runs` returns.
        heldout: use the accuracy on the held-out part of each target domain.
        without: results.json files whose predictions cannot be read: they have no AUROC.
        sources: also show as few-shot the trainings that are only sources of cross-dataset results.
        problems: list to which a message is added for predictions that cannot be read; they then
            have no AUROC.

    Raises:
        ValueError: predictions cannot be read, and there is no list for the message.
        FileNotFoundError: they are missing.
    """
    runs = runs[runs.counted]
    sections: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
        "base2new": partial(base_to_novel, without=without, problems=problems),
        "xd": partial(cross_dataset, protocol="xd"),
        "dg": partial(cross_dataset, protocol="dg"),
        "fewshot": partial(few_shot, sources=sources),
        "lodo": partial(left_out_domains, heldout=heldout),
        "openclass": open_class,
    }
    protocols = {*runs.protocol, *runs.asked[runs.trains]}
    rows = _stacked(section(runs) for name, section in sections.items() if name in protocols)
    return rows.assign(compared=rows.compared.where(~_of_test_time(rows), ""))


def result_tables(scores: pd.DataFrame) -> TitledTables:
    """Return all tables of the scores, with their titles.

    `attrs["readings"]` names the rows that are not compared: a method's other readings, and methods
    that have used the test images.
    """
    tables = [(str(t), over_seeds(rows)) for t, rows in scores.groupby("table", sort=False)]
    pairs = scores[scores.protocol == "base2new"]
    count = pairs["dataset"].nunique()
    if count > 1:
        title = f"Base-to-novel: average over {count} data sets"
        tables.append((title, average_over_datasets(pairs)))
    readings = sorted(set(scores.method[(scores.variant != "") | _of_test_time(scores)]))
    for _, table in tables:
        table.attrs["readings"] = readings
    return tables


def _of_test_time(scores: pd.DataFrame) -> pd.Series:
    """Return which scores are of methods that have used the test images."""
    return scores.method.astype(str).str.contains(TEST_TIME, regex=False)


def shots_name(shots: int) -> str:
    """Return the name of a number of training images per class; below 1 it is "all images"."""
    return "all images" if shots < 1 else "1 shot" if shots == 1 else f"{shots} shots"


def _stacked(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True)[SCORE] if parts else pd.DataFrame(columns=SCORE)


def _long(rows: pd.DataFrame, columns: Sequence[str], compared: Sequence[str]) -> pd.DataFrame:
    """Return rows with a column for each quantity as scores, without missing values."""
    long = rows.melt(KEYS, list(columns), var_name="quantity", value_name="value")
    long["compared"] = long["quantity"].where(long["quantity"].isin(compared), "")
    return long.dropna(subset="value")[SCORE]


def _titles(protocol: str, subjects: Iterable[str], shots: Iterable[int]) -> list[str]:
    """Return the title of each row's table."""
    return [
        f"{PROTOCOL_TITLES[protocol]}: {subject}" + (f", {shots_name(count)}" if count > 0 else "")
        for subject, count in zip(subjects, shots, strict=True)
    ]


def _averaged(scores: pd.DataFrame, name: str, over: str, how: str = "mean") -> pd.DataFrame:
    """Return a further quantity of each table: the mean (or minimum) over the column `over`.

    It is left out for a seed of a method that lacks one of the table's values.
    """
    parts = []
    for table, part in scores.groupby("table", sort=False):
        index = ["protocol", *METHOD_KEYS, "shots", "seed"]
        wide = part.pivot_table(index=index, columns=over, values="value", sort=False).dropna()
        if len(wide):
            datasets = part["dataset"].unique()
            dataset = datasets[0] if len(datasets) == 1 else "average"
            rows = wide.agg(how, axis=1).rename("value").reset_index()
            parts.append(rows.assign(table=table, quantity=name, compared="", dataset=dataset))
    return _stacked(parts)


# Base-to-novel


def base_to_novel(
    runs: pd.DataFrame, *, without: Set[Path] = frozenset(), problems: list[str] | None = None
) -> pd.DataFrame:
    """Return base, new, HM, calibration errors and base-against-new AUROC of each pair of runs."""
    runs = runs[runs.protocol == "base2new"]
    keys = ["protocol", *METHOD_KEYS, "config", "dataset", "shots", "seed"]
    base, new = (runs[runs.subsample == half] for half in ("base", "new"))
    rows = base.merge(new, on=keys, suffixes=(" base", " new"))
    test, model = rows["trained_identity new"], rows["identity base"]
    rows = rows[test.isna() | model.isna() | (test == model)].copy()
    if rows.empty:
        return _stacked([])
    for half in ("base", "new"):
        rows[half] = rows[f"accuracy {half}"]
        rows[f"ECE {half}"] = [metrics.get("ece", np.nan) for metrics in rows[f"metrics {half}"]]
    rows["HM"] = scipy.stats.hmean(rows[["base", "new"]], axis=1)
    rows["AUROC"] = [
        np.nan if without & {base, new} else _detection_auroc(base, new, variant, problems)
        for base, new, variant in zip(
            rows["path base"], rows["path new"], rows.variant, strict=True
        )
    ]
    rows["train s"] = rows["seconds base"]
    rows["table"] = _titles("base2new", rows.dataset, rows.shots)
    return _long(rows, BASE_TO_NOVEL, ["base", "new", "HM"])


def _detection_auroc(base: Path, new: Path, variant: str, problems: list[str] | None) -> float:
    """Return the AUROC of new against base test images by uncertainty, per cent."""
    files = (path.with_name(PREDICTIONS_FILE) for path in (base, new))
    try:
        return novelty_auroc(*(Predictions.read(file).uncertainty(variant) for file in files))
    except (ValueError, OSError) as error:
        if problems is None:
            raise
        problems.append(str(error))
        return np.nan


def average_over_datasets(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each method's mean over data sets of its means over seeds; HM in both conventions."""
    index = ["method", "shots", "dataset"]
    per_set = scores[scores.quantity != "train s"].pivot_table(
        index=index, columns="quantity", values="value", sort=False
    )
    groups = per_set.groupby(["method", "shots"], sort=False)
    average = groups.mean().rename(columns={"HM": "average of HMs"})
    average.insert(2, "HM of averages", scipy.stats.hmean(average[["base", "new"]], axis=1))
    average.insert(0, "data sets", groups.size())
    return average.reset_index()


# Conformal sets


def conformal_tables(runs: pd.DataFrame) -> TitledTables:
    """Return coverage and mean size of the conformal sets of each test; empty without any.

    There is a table per data set, half of the classes, target domain, shots and level.
    """
    counted: list[Any] = list(runs[runs.counted].itertuples())
    rows = [
        {"method": run.method, "quantity": name, "value": run.metrics[key], "table": title}
        for run in counted
        if "conformal_level" in run.metrics and (title := _conformal_title(run))
        for name, key in CONFORMAL.items()
    ]
    groups = pd.DataFrame(rows, columns=["method", "quantity", "value", "table"]).groupby("table")
    return [(str(title), over_seeds(part)) for title, part in groups]


def _conformal_title(run: Any) -> str:
    """Return the title of the table to which a run belongs; `run` is a row of the runs."""
    half = "" if run.subsample == "all" else f"{run.subsample} classes"
    names = filter(None, [run.dataset, run.domain, half, shots_name(run.shots)])
    return f"Conformal sets of {run.metrics['conformal_level']:g} %: {', '.join(names)}"


# One source, other data sets


def cross_dataset(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return accuracy on the source and on each target of the models trained on the source.

    The average is over the targets. It is left out for seeds that lack one of them.
    """
    in_protocol = runs.protocol == protocol
    targets = runs[in_protocol & ~runs.trains]
    targets = targets.assign(quantity=targets.dataset, compared="target accuracy")
    trained = runs[runs.trains & (runs.protocol == "fewshot")]
    # A training that was run for this protocol is shown before its targets are tested.
    used = pd.concat([targets, trained[trained.asked == protocol]])[SOURCE_RUN]
    sources = trained.merge(used.drop_duplicates(), on=SOURCE_RUN)
    sources = sources.assign(quantity=sources.dataset + " (source)", compared="")
    rows = pd.concat([sources, targets], ignore_index=True)
    rows["protocol"], rows["value"] = protocol, rows.accuracy
    rows["table"] = _titles(protocol, "from " + rows.source, rows.shots)
    order = {name: place for place, name in enumerate(TARGETS)}
    place = rows.quantity.map(order).fillna(len(TARGETS)).where(rows.compared != "", -1)
    rows = rows.assign(place=place).sort_values(["place", "quantity"], kind="stable")[SCORE]
    return _stacked([rows, _averaged(rows[rows.compared != ""], "average", "quantity")])


# Few-shot


def few_shot(runs: pd.DataFrame, *, sources: bool = False) -> pd.DataFrame:
    """Return accuracy by training images per class, and its mean over data sets."""
    shown = (runs.protocol == "fewshot") & (sources | ~_only_a_source(runs))
    rows = runs[shown | (runs.asked == "fewshot")].assign(protocol="fewshot")
    rows = rows.sort_values("shots", key=lambda s: s.where(s > 0, np.inf), kind="stable")
    halves = rows.subsample.map(lambda half: "" if half == "all" else f"{half} classes")
    subjects = [
        ", ".join(filter(None, names))
        for names in zip(rows.dataset, rows.domain, halves, strict=True)
    ]
    rows["dataset"] = pd.Series(subjects, index=rows.index, dtype=object)  # text even if empty
    rows["table"] = "Few-shot: " + rows.dataset
    rows["quantity"] = [shots_name(shots) for shots in rows.shots]
    rows["value"], rows["compared"] = rows.accuracy, "accuracy"
    rows = rows.sort_values("dataset", kind="stable")[SCORE]
    count = rows.dataset.nunique()
    if count < 2:
        return rows
    averaged = rows.assign(table=f"Few-shot: average over {count} data sets")
    means = [
        _averaged(part, str(name), "dataset")
        for name, part in averaged.groupby("quantity", sort=False)
        if part.dataset.nunique() == count
    ]
    return _stacked([rows, *means])


def _only_a_source(runs: pd.DataFrame) -> pd.Series:
    """Return which trainings are only a source of cross-dataset results."""
    targets = runs[runs.protocol.isin(["xd", "dg"])]
    used = pd.MultiIndex.from_frame(runs[SOURCE_RUN]).isin(
        pd.MultiIndex.from_frame(targets[SOURCE_RUN])
    )
    return runs.asked.isin(["xd", "dg"]) | ((runs.asked == "") & used)


# Domains


def left_out_domains(runs: pd.DataFrame, *, heldout: bool = False) -> pd.DataFrame:
    """Return accuracy on each target domain, their average and their worst."""
    rows = runs[runs.protocol == "lodo"]
    rows = rows.assign(quantity=rows.domain, value=rows.accuracy, compared="target accuracy")
    if heldout:
        rows = rows[["heldout" in parts for parts in rows.parts]]
        rows["value"] = [parts["heldout"]["accuracy"] for parts in rows.parts]
    rows = rows.assign(table=_titles("lodo", rows.dataset, rows.shots))[SCORE]
    average = _averaged(rows, "average", "quantity")
    tables = [rows, average, _averaged(rows, "worst", "quantity", "min")]
    if average.dataset.nunique() > 1:  # one more table: the averages of all data sets
        title = _titles("lodo", ["all data sets"] * len(average), average.shots)
        averages = average.assign(quantity=average.dataset, table=title)
        tables += [averages, _averaged(averages, "average", "quantity")]
    return _stacked(tables)


def open_class(runs: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy on base and open classes averaged over targets, and HM of the averages.

    Seeds that lack a target are left out.
    """
    rows = runs[runs.protocol == "openclass"]
    rows = rows.loc[[{"base", "open"} <= set(parts) for parts in rows.parts]]
    rows = rows.assign(
        base=[parts["base"]["accuracy"] for parts in rows.parts],
        open=[parts["open"]["accuracy"] for parts in rows.parts],
        all=rows.accuracy,
        table=_titles("openclass", rows.dataset, rows.shots),
    )
    targets = rows.groupby("table")["domain"].nunique()
    groups = rows.groupby(KEYS, sort=False)
    means = groups[["base", "open", "all"]].mean().assign(targets=groups["domain"].nunique())
    means = means.reset_index()
    means = means[means.targets == means.table.map(targets)]
    means["HM"] = scipy.stats.hmean(means[["base", "open"]], axis=1)
    return _long(means, ["base", "open", "all", "HM"], ["base", "open", "HM"])
