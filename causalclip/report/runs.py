"""Every results.json below a folder as one table of runs, a row for each reading of a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from causalclip.report.results import RESULTS_FILE, Result
from causalclip.report.settings import name_settings, settings_of

# What two results share that differ in nothing but the seed.
SAME_BUT_SEED = [
    "protocol",
    "method",
    "backbone",
    "source",
    "dataset",
    "shots",
    "domain",
    "subsample",
]


def load_runs(root: Path) -> pd.DataFrame:
    """One row per result and reading of the method (its variants); empty without any result.

    Raises:
        ValueError: a results.json that cannot be read, or results of one method, data set and half
            whose classes differ; names the files.
    """
    found = {path: Result.read(path) for path in sorted(root.rglob(RESULTS_FILE))}
    runs = table_of({path: result for path, result in found.items() if shows(result)})
    if runs.empty:
        return runs
    check_classes(runs)
    return runs


def shows(result: Result) -> bool:
    """Whether it belongs into the protocols' tables; those of an ablation have their own."""
    return result.protocol != "ablation"


def table_of(results: Mapping[Path, Result]) -> pd.DataFrame:
    """One row per result and reading of the method, of results by file; empty without any."""
    rows = [
        run_row(result, path, variant)
        for path, result in results.items()
        for variant in ("", *result.variants)
    ]
    return name_methods(pd.DataFrame(rows)) if rows else pd.DataFrame()


def run_row(result: Result, path: Path, variant: str) -> dict[str, Any]:
    """The facts of one result that the tables use; `variant` "" is the method's own reading."""
    trained = result.trained()
    return {
        "protocol": result.protocol,
        "trainer": result.trainer,
        "config": result.config_name or path.parent.parent.name,
        "variant": variant,
        "method": result.trainer + (f", {variant}" if variant else ""),
        "backbone": result.backbone,
        "dataset": result.dataset,
        "source": trained["dataset"],
        "shots": trained["shots"],
        "seed": result.seed,
        "subsample": result.subsample_classes,
        "domain": " ".join(result.target_domains),
        "trains": result.trained_on is None,
        "seconds": result.training_seconds,
        "metrics": result.variants[variant] if variant else result.metrics,
        # A variant's own, where the run has recorded them; the method's are of another reading.
        "parts": result.variant_parts.get(variant, {}) if variant else result.parts,
        "settings": settings_of(result),
        "classnames": tuple(result.classnames),
        "details": result.details,
        "path": path,
    }


def name_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """Add to a method's name what tells it from others of one trainer in one place.

    That is the configuration file, and settings given beside it (also as the column `setting`).
    """
    place = ["protocol", "trainer", "source", "dataset", "shots", "domain", "subsample"]
    several = runs.groupby(place)["config"].transform("nunique") > 1
    several = several.groupby([runs.protocol, runs.trainer]).transform("any")
    runs = runs.assign(setting=name_settings(runs))
    configs = runs["config"].where(several, "")
    more = [", ".join(filter(None, pair)) for pair in zip(configs, runs.setting, strict=True)]
    runs["method"] += [f" ({text})" if text else "" for text in more]
    return runs


def check_classes(runs: pd.DataFrame) -> None:
    """Raise ValueError where seeds of one method have been tested on other classes."""
    for _, message in of_other_classes(runs):
        raise ValueError(message)


def of_other_classes(runs: pd.DataFrame) -> Iterator[tuple[pd.Index, str]]:
    """The rows tested on other classes than the first of their seeds, and what to say of them."""
    if runs.empty:
        return
    for _, part in runs.groupby(SAME_BUT_SEED, sort=False):
        first, other = part.iloc[0], part[part.classnames != part.classnames.iloc[0]]
        if len(other):
            one, two = first.classnames, other.classnames.iloc[0]
            message = (
                f"{first.path} and {other.path.iloc[0]} are of the same method and data and have "
                f"other classes: {only_in(one, two)} against {only_in(two, one)}; "
                "their mean would say nothing: move one of them away"
            )
            yield other.index, message


def only_in(names: tuple[str, ...], others: tuple[str, ...]) -> str:
    """The first class names that the others lack; how many there are where only order differs."""
    own = [name for name in names if name not in others]
    return ", ".join(own[:5]) if own else f"{len(names)} classes in their order"


def unpaired(runs: pd.DataFrame) -> pd.DataFrame:
    """Base-to-novel runs whose other half is missing."""
    mine = runs[(runs.protocol == "base2new") & (runs.variant == "")]
    keys = ["method", "backbone", "config", "dataset", "shots", "seed"]
    return mine[mine.groupby(keys)["subsample"].transform("nunique") < 2]
