"""Published figures (published_figures.yaml), and the difference of our results from them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads scipy.stats when it is used
import yaml

from causalclip.records.results import PROTOCOL_TITLES
from causalclip.report.tables import TitledTables, shots_name

PUBLISHED_FILE = Path(__file__).with_name("published_figures.yaml")
BASE_NEW_HM = ("base", "new", "HM")
SHOTS = tuple(map(shots_name, (1, 2, 4, 8, 16)))

PublishedFigures = dict[tuple[str, str], float]
"""Figures in per cent by (data set or "average", quantity)."""


@functools.cache
def load_figures(protocol: str) -> dict[str, tuple[str, PublishedFigures]]:
    """Return the source and the known figures of each trainer for one protocol."""
    names = {"base2new": BASE_NEW_HM, "lodo": ("average",), "fewshot": SHOTS}
    trainers = {}
    for trainer, rows in _read(protocol).items():
        source = rows.pop("source")
        if backbone := rows.pop("backbone", ""):
            source += f"; {backbone}"
        figures = {
            (dataset, name): value
            for dataset, values in rows.items()
            for name, value in zip(
                names.get(protocol, ("accuracy",)), np.atleast_1d(values).tolist(), strict=True
            )
            if value is not None
        }
        trainers[trainer] = source, figures
    return trainers


def _read(section: str) -> dict[str, Any]:
    return yaml.safe_load(PUBLISHED_FILE.read_text(encoding="utf-8")).get(section, {})


def published_averages(protocol: str) -> pd.DataFrame:
    """Return the published averages, a row per method; for lodo also those of each data set."""
    rows: dict[str, dict[str, float]] = {}
    for trainer, (_, figures) in load_figures(protocol).items():
        for (dataset, quantity), value in figures.items():
            if protocol == "lodo" or dataset == "average":
                column = quantity if protocol in ("base2new", "fewshot") else dataset
                rows.setdefault(trainer, {})[column] = value
    if protocol == "base2new":
        others = _read("base2new_others")
        rows |= {method: dict(zip(BASE_NEW_HM, row, strict=True)) for method, row in others.items()}
    return _two_digits([{"method": method, **row} for method, row in rows.items()])


def compare_with_published(scores: pd.DataFrame) -> TitledTables:
    """Return one table for each method, backbone and number of shots with published figures."""
    tables = []
    own = scores[scores.variant == ""]
    for protocol in map(str, dict.fromkeys(own.protocol)):
        name, published = PROTOCOL_TITLES[protocol], load_figures(protocol)
        keys = ["trainer", "method", "backbone", "shots"]
        for _, rows in own[own.protocol == protocol].groupby(keys, sort=False):
            trainer, method = rows[["trainer", "method"]].iloc[0]
            if trainer in published:
                source, figures = published[trainer]
                if protocol == "fewshot":
                    shots = shots_name(rows.shots.iloc[0])
                    figures = {key: value for key, value in figures.items() if key[1] == shots}
                    if not figures:
                        continue
                title = f"{name}: {method} and the published figures ({source})"
                title += _other_setting(rows, protocol, source)
                tables.append((title, _differences(rows, figures)))
    return tables


def _other_setting(scores: pd.DataFrame, protocol: str, figures_of: str) -> str:
    """Return a warning if backbone, shots or source differ from the published setting."""
    sources = scores[scores.quantity == scores.dataset + " (source)"]["dataset"]
    row, source = scores.iloc[0], sources.iloc[0] if len(sources) else "ImageNet"
    ours = [row.backbone, shots_name(row.shots), source]
    shots = {"lodo": "all images", "fewshot": ours[1]}.get(protocol, "16 shots")
    published = ["RN50" if figures_of.endswith("; RN50") else "ViT-B/16", shots, "ImageNet"]
    differing = [(a, b) for a, b in zip(ours, published, strict=True) if a != b]
    if not differing:
        return ""
    have, want = (", ".join(column) for column in zip(*differing, strict=True))
    return f"; NOT THE SAME SETTING: ours {have}; published {want}"


def _differences(scores: pd.DataFrame, figures: PublishedFigures) -> pd.DataFrame:
    """Return our means over seeds, the published figures and their differences.

    Our average is given only if all its data sets were run.
    """
    if scores.protocol.iloc[0] in ("xd", "dg"):  # leave out other sources than ImageNet
        source = scores.quantity == "ImageNet (source)"
        scores = scores[source | (scores.quantity == scores.dataset)].assign(quantity="accuracy")
        scores = scores[scores.dataset != "average"]
    seeds = scores.drop_duplicates(["dataset", "quantity", "seed"])
    values = seeds.groupby(["dataset", "quantity"], sort=False)["value"]
    means, sds, counts = values.mean(), values.std(ddof=0), values.size()
    rows = []
    for key, figure in figures.items():
        average = key[0] == "average"
        mean = _average(means, figures, key[1]) if average else means.get(key, np.nan)
        rows.append(
            {
                "data set": key[0],
                "quantity": key[1],
                "seeds": counts.get(key, ""),
                "ours": mean,
                "ours sd": sds.get(key, np.nan),
                "published": figure,
                "difference": mean - figure,
            }
        )
    return _two_digits(rows)


def _average(means: pd.Series, figures: PublishedFigures, quantity: str) -> float:
    """Return our mean over the data sets of a published average; for HM, the HM of the means."""
    if quantity == "HM":
        return float(
            scipy.stats.hmean([_average(means, figures, part) for part in ("base", "new")])
        )
    no_target = ("average", "ImageNet") if quantity == "accuracy" else ("average",)
    datasets = [d for d, q in figures if q == quantity and d not in no_target]
    if not datasets:  # only the average was published, over CoOp's eleven data sets
        return _average(means, load_figures("base2new")["CoOp"][1], quantity)
    return float(np.mean([means.get((dataset, quantity), np.nan) for dataset in datasets]))


def _two_digits(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return a table that is printed with two decimals, as in the papers."""
    table = pd.DataFrame(rows)
    table.attrs["digits"] = 2
    return table
