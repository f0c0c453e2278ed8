"""The published figures agree with themselves, and ours stands beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from causalclip import plugin
from causalclip.report.published_figures import (
    FIGURES,
    PARTS,
    against,
    load_figures,
    reference,
)
from causalclip.report.tables import SCORE

ROOT = Path(__file__).parents[2]

PROTOCOLS = ("base2new", "xd", "dg", "lodo")
COMPLETE = [
    (protocol, trainer)
    for protocol in PROTOCOLS
    for trainer, (_, figures) in load_figures(protocol).items()
    if len(figures) > 4 and any(row == "average" for row, _ in figures)
]


@pytest.mark.parametrize("trainer", [t for p, t in COMPLETE if p == "base2new"])
def test_published_harmonic_means_recompute_from_base_and_new(trainer):
    _, figures = load_figures("base2new")[trainer]
    for row in {row for row, _ in figures}:
        base, new, printed = (figures[row, part] for part in PARTS)
        assert printed == pytest.approx(2 / (1 / base + 1 / new), abs=0.015), row


@pytest.mark.parametrize(("protocol", "trainer"), COMPLETE)
def test_published_averages_recompute_from_their_rows(protocol, trainer):
    _, figures = load_figures(protocol)[trainer]
    for part in PARTS[:2] if protocol == "base2new" else ("accuracy",):
        rows = [v for (row, q), v in figures.items() if q == part and row != "average"]
        if protocol != "base2new":
            rows = rows[1:]  # without the source
        assert len(rows) == {"base2new": 11, "xd": 10, "dg": 4}[protocol]
        assert figures["average", part] == pytest.approx(np.mean(rows), abs=0.0101)


def test_averages_of_other_methods_hold_their_harmonic_mean():
    text = FIGURES.read_text()
    others = yaml.safe_load(text)["base2new_others"]
    for method, (base, new, printed) in others.items():
        tolerance = 0.25 if method in ("RPO", "HPT") else 0.015  # these average the HMs
        assert printed == pytest.approx(2 / (1 / base + 1 / new), abs=tolerance), method


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_figures_are_of_registered_trainers_and_data_sets(protocol):
    plugin.register_all()
    datasets = DATASET_REGISTRY.registered_names()
    for trainer, (_, figures) in load_figures(protocol).items():
        assert trainer in TRAINER_REGISTRY.registered_names()
        for row, _ in figures:
            assert row == "average" or row in datasets


def test_the_figures_of_the_readmes_are_there():
    table = reference("base2new").set_index("method")
    assert list(table.loc["MaPLe"]) == [82.28, 75.14, 78.55]
    assert list(table.loc["PromptSRC"]) == [84.26, 76.10, 79.97]
    assert "CDC" not in table.index  # no average is known


# Ours beside them


def score(dataset, quantity, value, *, protocol="base2new", **more):
    row = {
        "protocol": protocol,
        "table": "table",
        "method": "MaPLe",
        "trainer": "MaPLe",
        "variant": "",
        "backbone": "ViT-B/16",
        "dataset": dataset,
        "shots": 16,
        "seed": 1,
        "quantity": quantity,
        "value": value,
        "compared": "",
    }
    return {**row, **more}


def only_table(rows: list[dict]) -> tuple[str, pd.DataFrame]:
    ((title, table),) = against(pd.DataFrame(rows, columns=SCORE))
    return title, table.set_index(["data set", "quantity"])


def test_ours_is_the_mean_over_seeds_and_the_difference_ours_minus_published():
    rows = [score("EuroSAT", "base", value, seed=s) for s, value in [(1, 90.0), (2, 92.0)]]
    title, table = only_table(rows)
    row = table.loc["EuroSAT", "base"]
    assert (row["ours"], row["ours sd"], row["seeds"]) == (91, 1, 2)
    assert row["difference"] == pytest.approx(91 - 94.07)
    assert "MaPLe paper, Table 3" in title
    assert "NOT THE SAME SETTING" not in title


def test_an_average_of_ours_needs_every_data_set_of_the_published_one():
    _, figures = load_figures("base2new")["MaPLe"]
    same = [score(d, q, v) for (d, q), v in figures.items() if d != "average"]
    _, table = only_table(same)
    for part in PARTS:  # the published rows stand for ours: their average is the published one
        assert table.loc["average", part]["difference"] == pytest.approx(0, abs=0.01)
    _, table = only_table([row for row in same if row["dataset"] != "EuroSAT"])
    assert np.isnan(table.loc["average", "HM"]["ours"])


def test_of_a_method_whose_average_alone_is_printed_ours_is_over_the_same_eleven():
    _, figures = load_figures("base2new")["MaPLe"]
    more = {"method": "VPT", "trainer": "VPT"}
    same = [score(d, q, v, **more) for (d, q), v in figures.items() if d != "average"]
    _, table = only_table(same)
    assert table.loc["average", "base"]["ours"] == pytest.approx(82.28, abs=0.005)


def test_the_source_counts_as_itself_and_not_in_the_average():
    rows = [score("ImageNet", "ImageNet (source)", 70.0, protocol="dg")]
    for name in ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"):
        rows.append(score(name, name, 50.0, protocol="dg"))
    rows.append(score("average", "average", 99.0, protocol="dg"))  # of whatever targets were run
    _, table = only_table(rows)
    assert table.loc["ImageNet", "accuracy"]["ours"] == 70
    assert table.loc["average", "accuracy"]["ours"] == 50


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (score("EuroSAT", "base", 1.0, backbone="tiny"), "ours tiny; published ViT-B/16"),
        (score("EuroSAT", "base", 1.0, shots=4), "ours 4 shots; published 16 shots"),
        (score("EuroSAT", "base", 1.0, shots=1), "ours 1 shot; published 16 shots"),
        (
            score("Caltech101", "Caltech101 (source)", 1.0, protocol="xd"),
            "ours Caltech101; published ImageNet",
        ),
    ],
)
def test_another_setting_than_the_published_one_is_said(row, said):
    title, table = only_table([row])
    assert f"NOT THE SAME SETTING: {said}" in title
    if row["protocol"] == "xd":
        assert table["ours"].isna().all()


def test_a_method_without_figures_is_left_out():
    assert against(pd.DataFrame([score("EuroSAT", "base", 1.0, trainer="Mine")])) == []


def test_the_tables_in_the_documentation_hold_the_same_figures():
    lines = (ROOT / "docs" / "protocols.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    for trainer, (_, figures) in load_figures("base2new").items():
        if ("average", "HM") in figures:
            printed = [f"{figures['average', part]:.2f}" for part in PARTS]
            assert [trainer, *printed] in rows
    cross, variants = load_figures("xd"), load_figures("dg")
    for trainer, (_, figures) in variants.items():
        other = cross.get(trainer, ("", {}))[1].get(("average", "accuracy"))
        printed = [figures["ImageNet", "accuracy"], other, figures["average", "accuracy"]]
        assert [trainer, *("-" if v is None else f"{v:.2f}" for v in printed)] in rows
