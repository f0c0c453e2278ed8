"""Every results.json below a folder as one table of runs, with a row per result and reading.

Two results of one trainer and configuration file belong to different methods if they differ in a
setting that can change the result. The name of the method then includes these settings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalclip.records.results import IMAGENET_VARIANTS, RESULTS_FILE, Result
from causalclip.settings.check import base_node, flatten, names_file, separates_methods

RunSettings = dict[str, Any]
"""Values of a configuration by dotted key."""

TEST_TIME = ", test-time"
"""Part of the name of a method that has used the test images."""
SAME_BUT_SEED = "protocol method backbone source dataset shots domain subsample".split()
"""Columns that are equal in results that differ only in their seed."""
# Columns within which settings of a model are compared; they are the same for all test data.
SAME_MODEL = ["protocol", "source", "shots"]
# Columns within which other settings are compared: they may depend on the data set and the domain,
# and an evaluation does not read those of a training.
SAME_RUN = [*SAME_MODEL, "dataset", "domain", "trains"]


def load_results(root: Path, problems: list[str]) -> dict[Path, Result]:
    """Return the results below a folder by path; add a message on unreadable ones to `problems`."""
    results = {}
    for path in sorted(root.rglob(RESULTS_FILE)):
        try:
            results[path] = Result.read(path)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return results


def load_runs(root: Path, problems: list[str] | None = None) -> pd.DataFrame:
    """Return one row per result and reading of the method (its variants); empty without any result.

    Of several results of one method, data set and seed, only one counts (column `counted`). A
    result that cannot be read is left out, with a message in `problems`.

    Raises:
        ValueError: a results.json that cannot be read, without a list for the message; or results
            of one method, data set and half whose classes differ; names the files.
    """
    unreadable: list[str] = []
    results = load_results(root, unreadable)
    if problems is not None:
        problems += unreadable
    elif unreadable:
        raise ValueError("\n".join(unreadable))
    # `causalclip run ablation` makes the tables of an ablation.
    runs = run_table({p: result for p, result in results.items() if result.protocol != "ablation"})
    for _, message in class_mismatches(runs[runs.counted] if len(runs) else runs):
        raise ValueError(message)
    return runs


def run_table(results: Mapping[Path, Result]) -> pd.DataFrame:
    """Return one row per result and reading of the method; empty without any result."""
    rows = [
        _run_row(result, path, variant)
        for path, result in results.items()
        for variant in ("", *result.variants)
    ]
    if not rows:
        return pd.DataFrame()
    runs = _name_methods(pd.DataFrame(rows))
    return runs.assign(counted=runs.path.isin(_counted_paths(runs[runs.variant == ""])))


def protocol_of(result: Result) -> str:
    """Infer from its data and training to which protocol a result belongs; return "" for none.

    A training on all classes is a few-shot result; it is also the source of the cross-dataset
    results of its model.
    """
    if result.protocol == "ablation":
        return "ablation"
    if "open" in result.parts:
        return "openclass"
    if result.target_domains:
        return "lodo" if result.subsample_classes == "all" else ""
    if result.subsample_classes != "all":
        return "base2new"
    trained_on = result.trained_on
    if trained_on is None:
        return "fewshot"
    if trained_on["dataset"] == result.dataset or trained_on["subsample_classes"] != "all":
        return ""  # the training evaluated again, or base classes tested on all
    return "dg" if result.dataset in IMAGENET_VARIANTS else "xd"


def _run_row(result: Result, path: Path, variant: str) -> dict[str, Any]:
    """Return the columns of one result; `variant` "" is the method's own reading."""
    trained = result.trained()
    metrics = result.variants[variant] if variant else result.metrics
    return {
        "protocol": protocol_of(result),
        "asked": result.protocol,
        "trainer": result.trainer,
        "config": result.config_name or path.parent.parent.name,
        "variant": variant,
        "method": result.trainer
        + (TEST_TIME if result.details.get("test_time") else "")
        + (f", {variant}" if variant else ""),
        "backbone": result.backbone,
        "dataset": result.dataset,
        "source": trained["dataset"],
        "shots": trained["shots"],
        "seed": result.seed,
        "subsample": result.subsample_classes,
        "domain": " ".join(result.target_domains),
        "trains": result.trained_on is None,
        "seconds": result.training_seconds,
        "training": (result.trained_on is None and result.training) or {},
        "evaluation": result.evaluation,
        "metrics": metrics,
        "accuracy": metrics["accuracy"],
        # Parts of the variant, if they were recorded; those of the method are of another reading.
        "parts": result.variant_parts.get(variant, {}) if variant else result.parts,
        "start": result.config.get("TRAIN", {}).get("START", 0),
        "settings": _comparable(result),
        "classnames": tuple(result.classnames),
        "details": result.details,
        "identity": result.identity,
        "trained_identity": result.trained_identity,
        "tested": (result.data or {}).get(result.split),
        "time": result.time,
        "path": path,
    }


def class_mismatches(runs: pd.DataFrame) -> Iterator[tuple[pd.Index, str]]:
    """Yield rows whose classes differ from those of the first of their seeds, with a message."""
    if runs.empty:
        return
    for _, seeds in runs.groupby(SAME_BUT_SEED, sort=False):
        first, others = seeds.iloc[0], seeds[seeds.classnames != seeds.classnames.iloc[0]]
        if len(others):
            one, two = first.classnames, others.classnames.iloc[0]
            message = (
                f"{first.path} and {others.path.iloc[0]} are of the same method and data and have "
                f"other classes: {_only_in(one, two)} against {_only_in(two, one)}; "
                "their mean would be meaningless: move one of them away"
            )
            yield others.index, message


def _only_in(names: tuple[str, ...], others: tuple[str, ...]) -> str:
    own = [name for name in names if name not in others]
    return ", ".join(own[:5]) if own else f"{len(names)} classes in their order"


def _counted_paths(runs: pd.DataFrame) -> set[Path]:
    """Return the results that count: the newest of each method, data set and seed.

    In an ensemble, the member with the lowest TRAIN.START counts. In base-to-novel, the newest pair
    counts whose new half tested the model of its base half.
    """
    paths = set()
    halves = runs.protocol == "base2new"
    keys = [key for key in SAME_BUT_SEED if key != "subsample"]
    for _, same in runs[halves].groupby([*keys, "seed"], sort=False):
        paths |= _newest_pair(same)
    newest = newest_first(runs[~halves])
    return paths | set(newest.drop_duplicates([*SAME_BUT_SEED, "seed"]).path)


def newest_first(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs sorted by TRAIN.START, then by their time with the newest first."""
    return runs.sort_values(["start", "time", "path"], ascending=[True, False, False])


def _newest_pair(runs: pd.DataFrame) -> set[Path]:
    ordered = newest_first(runs)
    base, new = (ordered[ordered.subsample == half] for half in ("base", "new"))
    rows: list[list[Any]] = [list(half.itertuples()) for half in (new, base)]
    for test, training in itertools.product(*rows):
        known = test.trained_identity and training.identity  # if unknown, assume the same model
        if not known or test.trained_identity == training.identity:
            return {test.path, training.path}
    return {*base.path[:1], *new.path[:1]}


# Settings


def relevant_settings(result: Result) -> RunSettings:
    """Return the settings that separate methods, without those of other trainers."""
    config, name = dict(result.config), result.trainer.replace("_", "").lower()
    nodes = config.get("TRAINER")
    if isinstance(nodes, dict):  # CLIPAdapter's is CLIP_ADAPTER; other projects use any name
        own = {n: node for n, node in nodes.items() if n.replace("_", "").lower() == name}
        bases = {base_node(node) for node in own.values() if isinstance(node, dict)}
        own |= {n: node for n, node in nodes.items() if n in bases}
        config["TRAINER"] = own or nodes
    return {key: value for key, value in flatten(config) if separates_methods(key)}


def _comparable(result: Result) -> RunSettings:
    """Return the relevant settings, with `*` for the seed and the left-out domain in paths."""
    domains = result.target_domains

    def masked(value: Any) -> Any:
        if not isinstance(value, str) or "/" not in value:
            return value
        value = re.sub(rf"\bseed{result.seed}\b", "seed*", value)
        return "/".join("*" if part in domains else part for part in value.split("/"))

    return {key: masked(value) for key, value in relevant_settings(result).items()}


def _name_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """Add to each method's name what distinguishes it from other methods of the same trainer.

    This is the configuration file, and the settings that differ (also as the column `setting`).
    """
    place = ["protocol", "trainer", "source", "dataset", "shots", "domain", "subsample"]
    several = runs.groupby(place)["config"].transform("nunique") > 1
    several = several.groupby([runs.protocol, runs.trainer]).transform("any")
    runs = runs.assign(setting=_setting_names(runs))
    configs = runs["config"].where(several, "")
    names = [", ".join(filter(None, pair)) for pair in zip(configs, runs.setting, strict=True)]
    runs["method"] += [f" ({name})" if name else "" for name in names]
    return runs


def _setting_names(runs: pd.DataFrame) -> pd.Series:
    """Return for each run the settings in which its method differs as "KEY=value, ...", or ""."""
    names = pd.Series("", index=runs.index, dtype=object)
    for _, rows in runs.groupby(["trainer", "config"], sort=False):
        keys = list(dict.fromkeys(key for settings in rows["settings"] for key in settings))
        model = [k for k in keys if k.startswith(("TRAINER.", "MODEL.")) and not names_file(k)]
        others = [key for key in keys if key not in model]
        keys = [*_differing(rows, SAME_MODEL, model), *_differing(rows, SAME_RUN, others)]
        texts = [
            # values as typed; keys without the prefix TRAINER.NODE
            ", ".join(f"{re.sub('^TRAINER[.].+?[.]', '', k)}={s.get(k, '-')}" for k in keys)
            for s in rows["settings"]
        ]
        names[rows.index] = np.array(texts, dtype=object)
    return names


def _differing(runs: pd.DataFrame, place: list[str], keys: Sequence[str]) -> list[str]:
    """Return the keys whose values differ between runs that are equal in the columns `place`."""
    groups = [list(settings) for _, settings in runs.groupby(place, sort=False)["settings"]]
    return [key for key in keys if any(_differs(key, group) for group in groups)]


def _differs(key: str, group: Sequence[RunSettings]) -> bool:
    if all(key in settings for settings in group):
        return len({str(settings[key]) for settings in group}) > 1
    return any(settings.get(key) for settings in group)  # a missing setting means off
