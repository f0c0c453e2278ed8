"""Tables from the results.json files below a folder; nothing is read from logs.

    python scripts/summarize.py output
    python scripts/summarize.py output/base2new --format latex

Mean ± standard deviation over seeds (population, as in the family's parse_test_res.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from causalclip.metrics import harmonic_mean, novelty_auroc

TABLE_FORMATS = {"markdown": "github", "latex": "latex_booktabs"}
RUN = ["dataset", "shots", "method"]  # what one row of a table is about, over its seeds


# -- reading -----------------------------------------------------------------------------------


def load_runs(root: Path) -> pd.DataFrame:
    """One row per result and reading of the method (its variants), newest schema only."""
    rows = []
    for path in sorted(root.rglob("results.json")):
        record = json.loads(path.read_text())
        rows += [run_row(record, path, variant) for variant in ["", *record["variants"]]]
    return pd.DataFrame(rows)


def run_row(record: dict, path: Path, variant: str) -> dict:
    """The facts of one result that the tables use."""
    training = record["training"] or {}
    return {
        "trainer": record["trainer"],
        "config": path.parent.parent.name,
        "variant": variant,
        "method": record["trainer"] + (f", {variant}" if variant else ""),
        "dataset": record["dataset"],
        "shots": record["shots"],
        "seed": record["seed"],
        "subsample": record["subsample_classes"],
        "source": " ".join(record["source_domains"]),
        "target": " ".join(record["target_domains"]),
        "n_classes": len(record["classnames"]),
        "trained_on": (record.get("trained_on") or {}).get("dataset"),
        "seconds": training.get("seconds"),
        "metrics": record["variants"][variant] if variant else record["metrics"],
        "parts": record["parts"],
        "path": path,
    }


def name_methods(runs: pd.DataFrame) -> pd.DataFrame:
    """Add the configuration to a method's name where one trainer ran with several."""
    several = runs.groupby(["trainer", "dataset"])["config"].transform("nunique") > 1
    runs = runs.copy()
    runs.loc[several, "method"] += " (" + runs.loc[several, "config"] + ")"
    return runs


# -- base-to-novel -----------------------------------------------------------------------------


def base_to_novel(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run with base, new, HM, calibration errors and base-against-new AUROC."""
    keys = [*RUN, "variant", "seed", "config"]
    base = runs[(runs.subsample == "base") & (runs.target == "")]
    new = runs[(runs.subsample == "new") & (runs.target == "")]
    pairs = base.merge(new, on=keys, suffixes=("_base", "_new"))
    rows = []
    for _, pair in pairs.iterrows():
        one, other = pair["metrics_base"], pair["metrics_new"]
        rows.append(
            {
                **{key: pair[key] for key in RUN},
                "base": one["accuracy"],
                "new": other["accuracy"],
                "HM": harmonic_mean(one["accuracy"], other["accuracy"]),
                "ECE base": one["ece"],
                "ECE new": other["ece"],
                "AUROC": detection(pair),
                "train s": pair["seconds_base"],
            }
        )
    return pd.DataFrame(rows, columns=[*RUN, *BASE_TO_NOVEL])


BASE_TO_NOVEL = ["base", "new", "HM", "ECE base", "ECE new", "AUROC", "train s"]


def detection(pair: pd.Series) -> float:
    """AUROC of new against base test images by uncertainty, per cent."""
    name = f"{pair['variant']}/uncertainty" if pair["variant"] else "uncertainty"
    values = [
        np.load(pair[path].with_name("predictions.npz"))[name] for path in ("path_base", "path_new")
    ]
    return novelty_auroc(*values)


def average_over_datasets(rows: pd.DataFrame) -> pd.DataFrame:
    """Per method the mean over data sets; HM both ways, the published one first."""
    per_set = rows.groupby(RUN, sort=False)[BASE_TO_NOVEL].mean().reset_index()
    mean = per_set.groupby(["shots", "method"], sort=False)[BASE_TO_NOVEL].mean().reset_index()
    mean = mean.rename(columns={"HM": "average of HMs"})
    mean.insert(
        4, "HM of averages", [harmonic_mean(b, n) for b, n in zip(mean.base, mean.new, strict=True)]
    )
    return mean.drop(columns="train s")


# -- domains -----------------------------------------------------------------------------------


def leave_one_out(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a method and seed, one column a target domain, their average and their worst."""
    lodo = runs[(runs.target != "") & (runs.subsample == "all") & ~is_open_class(runs)].copy()
    lodo["accuracy"] = [metrics["accuracy"] for metrics in lodo.metrics]
    if lodo.empty:
        return lodo
    table = lodo.pivot_table(
        index=[*RUN, "seed"], columns="target", values="accuracy", sort=False
    )
    targets = list(table.columns)
    table["average"] = table[targets].mean(axis=1, skipna=False)
    table["worst"] = table[targets].min(axis=1, skipna=False)
    return table.reset_index().drop(columns="seed")


def is_open_class(runs: pd.DataFrame) -> pd.Series:
    """Which results are of the open-class protocol: they report base and open classes apart."""
    return pd.Series(["open" in parts for parts in runs.parts], index=runs.index, dtype=bool)


def open_class(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a method and seed: base and open classes of the targets, averaged over targets."""
    rows = runs[is_open_class(runs)].copy()
    for part in ("base", "open"):
        rows[part] = [parts[part]["accuracy"] for parts in rows.parts]
    rows["all"] = [metrics["accuracy"] for metrics in rows.metrics]
    columns = ["base", "open", "all"]
    table = rows.groupby([*RUN, "seed"], sort=False)[columns].mean().reset_index()
    table["HM"] = [harmonic_mean(b, o) for b, o in zip(table.base, table.open, strict=True)]
    return table.drop(columns="seed")


# -- printing ----------------------------------------------------------------------------------


def over_seeds(rows: pd.DataFrame, index: Sequence[str]) -> pd.DataFrame:
    """Mean and population standard deviation of every other column over the seeds."""
    values = [column for column in rows.columns if column not in index]
    groups = rows.groupby(list(index), sort=False)
    out = groups.size().rename("seeds").reset_index()
    for column in values:
        out[column] = groups[column].mean().to_numpy()
        out[f"{column} sd"] = groups[column].std(ddof=0).to_numpy()
    return out


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table for reading: mean ± sd in one cell, one decimal, - where there is nothing."""
    out = table.copy()
    for column in [c for c in table.columns if f"{c} sd" in table.columns]:
        out[column] = [
            cell(mean, sd) for mean, sd in zip(out[column], out[f"{column} sd"], strict=True)
        ]
        out = out.drop(columns=f"{column} sd")
    return out


def cell(mean: float, sd: float) -> str:
    """One cell: mean ± sd."""
    return "-" if pd.isna(mean) else f"{mean:.1f} ± {sd:.1f}"


def render(table: pd.DataFrame, style: str) -> str:
    """The table as markdown, latex, csv or json."""
    if style == "json":
        return table.to_json(orient="records", indent=1)
    if style == "csv":
        return table.to_csv(index=False).rstrip()
    readable = shown(table)
    return tabulate(
        readable, headers="keys", tablefmt=TABLE_FORMATS[style], showindex=False, floatfmt=".1f"
    )


def tables(runs: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Every protocol that the results hold, with a title."""
    found = []
    sections: list[tuple[str, Callable[[pd.DataFrame], pd.DataFrame]]] = [
        ("Base-to-novel", base_to_novel),
        ("Leave one domain out", leave_one_out),
        ("Open class", open_class),
    ]
    for title, section in sections:
        rows = section(runs)
        for (dataset, shots), part in rows.groupby(["dataset", "shots"], sort=False):
            part = part.dropna(axis=1, how="all").drop(columns=["dataset", "shots"])
            name = f"{title}: {dataset}" + (f", {shots} shots" if shots > 0 else "")
            found.append((name, over_seeds(part, ["method"])))
        if section is base_to_novel and rows["dataset"].nunique() > 1:
            name = f"Base-to-novel: average over {rows['dataset'].nunique()} data sets"
            found.append((name, average_over_datasets(rows)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 2 when there is nothing to print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder with results.json files below it")
    parser.add_argument(
        "--format", choices=["markdown", "latex", "csv", "json"], default="markdown"
    )
    args = parser.parse_args(argv)
    if not args.root.is_dir():
        print(f"summarize.py: {args.root} is not a folder", file=sys.stderr)
        return 2
    runs = load_runs(args.root)
    found = tables(name_methods(runs)) if len(runs) else []
    if not found:
        print(f"summarize.py: no finished runs below {args.root}", file=sys.stderr)
        return 2
    for title, table in found:
        if args.format in ("markdown", "latex"):
            print(f"\n{title} (mean ± standard deviation over seeds)\n")
        print(render(table, args.format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
