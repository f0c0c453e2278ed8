"""Ours beside the published figures (published_figures.yaml), and the difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.stats import hmean

from causalclip.report.protocols import PROTOCOLS
from causalclip.report.tables import shots_name

FIGURES = Path(__file__).with_name("published_figures.yaml")
PARTS = ("base", "new", "HM")
Figures = dict[tuple[str, str], float]


def load_figures(protocol: str) -> dict[str, tuple[str, Figures]]:
    """Per trainer the source and the figures {(row, quantity): value} of one protocol."""
    published = yaml.safe_load(FIGURES.read_text()).get(protocol, {})
    return {
        trainer: (rows.pop("source"), flat(protocol, rows)) for trainer, rows in published.items()
    }


def flat(protocol: str, rows: dict) -> Figures:
    """Figures by (row, quantity), without those that are not known."""
    if protocol == "base2new":
        cells = {(d, q): v for d, row in rows.items() for q, v in zip(PARTS, row, strict=True)}
    else:
        quantity = "average" if protocol == "lodo" else "accuracy"
        cells = {(dataset, quantity): value for dataset, value in rows.items()}
    return {key: value for key, value in cells.items() if value is not None}


def reference(protocol: str) -> pd.DataFrame:
    """The published averages of a protocol, one row a method; of lodo the data sets' figures."""
    rows = []
    for trainer, (_, figures) in load_figures(protocol).items():
        chosen = {key: v for key, v in figures.items() if protocol == "lodo" or key[0] == "average"}
        if chosen:
            names = [q if protocol == "base2new" else dataset for dataset, q in chosen]
            rows.append({"method": trainer, **dict(zip(names, chosen.values(), strict=True))})
    if protocol == "base2new":
        others = yaml.safe_load(FIGURES.read_text())["base2new_others"]
        rows += [{"method": m, **dict(zip(PARTS, v, strict=True))} for m, v in others.items()]
    return two_digits(rows)


def against(scores: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """One table for each method, backbone and number of shots that has published figures."""
    found = []
    mine = scores[scores.variant == ""]
    for protocol in PROTOCOLS:
        part = mine[mine.protocol == protocol]
        published = load_figures(protocol)
        keys = ["trainer", "method", "backbone", "shots"]
        for _, group in part.groupby(keys, sort=False):
            trainer, method, backbone, shots = group[keys].to_numpy()[0].tolist()
            if trainer in published:
                source, figures = published[trainer]
                title = f"{PROTOCOLS[protocol]}: {method} beside the published figures ({source})"
                title += other_setting(protocol, backbone, shots, source_of(group))
                found.append((title, beside(ours(group, protocol), figures)))
    return found


def source_of(scores: pd.DataFrame) -> str:
    """The data set that xd and dg were trained on; ImageNet where no result says another."""
    named = scores[scores.quantity == scores.dataset + " (source)"]["dataset"]
    return named.iloc[0] if len(named) else "ImageNet"


def other_setting(protocol: str, backbone: str, shots: int, source: str) -> str:
    """What to say where ours is not what was published."""
    wanted = ["ViT-B/16", "all images" if protocol == "lodo" else "16 shots", "ImageNet"]
    mine = [backbone, shots_name(shots), source]
    differ = [(m, w) for m, w in zip(mine, wanted, strict=True) if m != w]
    if not differ:
        return ""
    have, want = (", ".join(column) for column in zip(*differ, strict=True))
    return f"; NOT THE SAME SETTING: ours {have}; published {want}"


def ours(scores: pd.DataFrame, protocol: str) -> dict[tuple[str, str], np.ndarray]:
    """The values over seeds of one method by (row, quantity), named as the figures are."""
    values = {}
    for (dataset, quantity), part in scores.groupby(["dataset", "quantity"], sort=False):
        if protocol in ("xd", "dg"):
            if quantity == "average" or (quantity != dataset and dataset != "ImageNet"):
                continue  # an average over other data sets, or the accuracy on another source
            quantity = "accuracy"
        values[dataset, quantity] = part.drop_duplicates("seed")["value"].to_numpy()
    return values


def beside(values: dict[tuple[str, str], np.ndarray], figures: Figures) -> pd.DataFrame:
    """Ours, published and the difference; an average of ours only where all its rows are there."""
    means = {key: value.mean() for key, value in values.items()}
    rows = []
    for (dataset, quantity), figure in figures.items():
        key = (dataset, quantity)
        mean = means.get(key, np.nan)
        if dataset == "average":
            mean = average(means, figures, quantity)
        seeds = values.get(key, np.empty(0))
        rows.append(
            {
                "data set": dataset,
                "quantity": quantity,
                "seeds": len(seeds) or "",
                "ours": mean,
                "ours sd": seeds.std() if len(seeds) else np.nan,
                "published": figure,
                "difference": mean - figure,
            }
        )
    return two_digits(rows)


def two_digits(rows: list[dict]) -> pd.DataFrame:
    """A table to be printed with the two decimals of the papers."""
    table = pd.DataFrame(rows)
    table.attrs["digits"] = 2
    return table


def average(means: dict[tuple[str, str], float], figures: Figures, quantity: str) -> float:
    """Ours over the data sets that the published average is of; HM is that of the averages."""
    if quantity == "HM":
        return float(hmean([average(means, figures, part) for part in ("base", "new")]))
    rows = averaged_rows(figures, quantity)
    return float(np.mean([means.get((row, quantity), np.nan) for row in rows]))


def averaged_rows(figures: Figures, quantity: str) -> list[str]:
    """The data sets behind a published average: the eleven, or a source's targets."""
    rows = [d for d, q in figures if q == quantity and d != "average"]
    if quantity == "accuracy":
        return [row for row in rows if row != "ImageNet"]  # the source
    # Methods of which only the average is printed share the data sets of the others.
    return rows or averaged_rows(load_figures("base2new")["CoOp"][1], quantity)
