"""Every results.json below a folder as one table of runs, sorted into the protocols."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

PROTOCOLS = {
    "base2new": "Base-to-novel",
    "xd": "Cross-dataset",
    "dg": "Domain generalisation",
    "fewshot": "Few-shot",
    "lodo": "Leave one domain out",
    "openclass": "Open class",
}
VARIANTS = ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")


def load_runs(root: Path) -> pd.DataFrame:
    """One row per result and reading of the method (its variants), newest schema only."""
    rows = []
    for path in sorted(root.rglob("results.json")):
        record = json.loads(path.read_text())
        rows += [run_row(record, path, variant) for variant in ["", *record["variants"]]]
    return name_methods(pd.DataFrame(rows)) if rows else pd.DataFrame()


def run_row(record: dict, path: Path, variant: str) -> dict:
    """The facts of one result that the tables use."""
    trained_on = record.get("trained_on") or {}
    return {
        "protocol": protocol_of(record),
        "trainer": record["trainer"],
        "config": record.get("config_name") or path.parent.parent.name,
        "variant": variant,
        "method": record["trainer"] + (f", {variant}" if variant else ""),
        "backbone": record["backbone"],
        "dataset": record["dataset"],
        "source": trained_on.get("dataset", record["dataset"]),
        "shots": trained_on.get("shots", record["shots"]),
        "seed": record["seed"],
        "subsample": record["subsample_classes"],
        "domain": " ".join(record["target_domains"]),
        "seconds": (record["training"] or {}).get("seconds"),
        "metrics": record["variants"][variant] if variant else record["metrics"],
        # A variant's own, where the run has recorded them; the method's are of another reading.
        "parts": record.get("variant_parts", {}).get(variant, {}) if variant else record["parts"],
        "path": path,
    }


def protocol_of(record: dict) -> str:
    """The protocol a result belongs to; empty for one that is of none."""
    subsample, trained_on = record["subsample_classes"], record.get("trained_on")
    if "open" in record["parts"]:
        return "openclass"
    if record["target_domains"]:
        return "lodo" if subsample == "all" else ""
    if subsample != "all":
        return "base2new"
    if trained_on is None:
        return "fewshot"
    if trained_on["dataset"] == record["dataset"] or trained_on["subsample_classes"] != "all":
        return ""  # the same run evaluated again, or base classes tested on all
    return "dg" if record["dataset"] in VARIANTS else "xd"


def name_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the configuration to a method's name where a trainer ran with several in one place."""
    place = ["protocol", "trainer", "source", "dataset", "shots", "domain", "subsample"]
    several = runs.groupby(place)["config"].transform("nunique") > 1
    several = several.groupby([runs.protocol, runs.trainer]).transform("any")
    runs = runs.copy()
    runs.loc[several, "method"] += " (" + runs.loc[several, "config"] + ")"
    return runs


def unpaired(runs: pd.DataFrame) -> pd.DataFrame:
    """Base-to-novel runs whose other half is missing."""
    mine = runs[(runs.protocol == "base2new") & (runs.variant == "")]
    keys = ["method", "backbone", "config", "dataset", "shots", "seed"]
    return mine[mine.groupby(keys)["subsample"].transform("nunique") < 2]
