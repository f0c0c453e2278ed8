"""The published figures agree with themselves, and ours stands beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from causalclip import plugin
from causalclip.report.published_figures import (
    BASE_NEW_HM,
    SHOTS,
    compare_with_published,
    load_figures,
    published_averages,
)
from causalclip.report.tables import SCORE

ROOT = Path(__file__).parents[2]

PROTOCOLS = ("base2new", "xd", "dg", "lodo", "fewshot")
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
        base, new, printed = (figures[row, part] for part in BASE_NEW_HM)
        assert printed == pytest.approx(2 / (1 / base + 1 / new), abs=0.015), row


@pytest.mark.parametrize(("protocol", "trainer"), COMPLETE)
def test_published_averages_recompute_from_their_rows(protocol, trainer):
    _, figures = load_figures(protocol)[trainer]
    known = {"base2new": BASE_NEW_HM[:2], "fewshot": SHOTS}
    for part in known.get(protocol, ("accuracy",)):
        rows = [v for (row, q), v in figures.items() if q == part and row != "average"]
        if protocol not in known:
            rows = rows[1:]  # without the source
        assert len(rows) == {"base2new": 11, "fewshot": 11, "xd": 10, "dg": 4}[protocol]
        tolerance = 0.0051 if protocol == "fewshot" else 0.0101
        assert figures["average", part] == pytest.approx(np.mean(rows), abs=tolerance)


def test_a_few_shot_table_has_the_figures_of_its_shots():
    rows = [
        score("EuroSAT", name, value, protocol="fewshot", shots=shots, backbone="RN50")
        | {"method": "GDA", "trainer": "GDA"}
        for shots, name, value in [(1, "1 shot", 60.0), (16, "16 shots", 80.0), (3, "3 shots", 1.0)]
    ]
    tables = compare_with_published(pd.DataFrame(rows, columns=SCORE))
    assert len(tables) == 2  # nothing is published at 3 shots
    for (title, table), (name, figure) in zip(
        tables, [("1 shot", 58.3), ("16 shots", 86.12)], strict=True
    ):
        assert "NOT THE SAME SETTING" not in title
        row = table.set_index(["data set", "quantity"]).loc["EuroSAT", name]
        assert row["difference"] == pytest.approx(row["ours"] - figure)
        assert set(table["quantity"]) == {name}


def test_averages_are_those_of_the_readmes_and_hold_their_harmonic_mean():
    table = published_averages("base2new").set_index("method")
    assert list(table.loc["MaPLe"]) == [82.28, 75.14, 78.55]
    assert list(table.loc["PromptSRC"]) == [84.26, 76.10, 79.97]
    assert "CDC" not in table.index  # no average is known
    for method, (base, new, printed) in table.dropna().iterrows():  # MMA++ prints HM alone
        tolerance = 0.25 if method in ("RPO", "HPT") else 0.015  # these average the HMs
        assert printed == pytest.approx(2 / (1 / base + 1 / new), abs=tolerance), method


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_figures_are_of_registered_trainers_and_data_sets(protocol):
    plugin.register_all()
    datasets = DATASET_REGISTRY.registered_names()
    for trainer, (_, figures) in load_figures(protocol).items():
        assert trainer in TRAINER_REGISTRY.registered_names()
        assert {row for row, _ in figures} <= {"average", *datasets}


# Ours beside them


def score(dataset, quantity, value, *, protocol="base2new", **more):
    row = {"protocol": protocol, "table": "table", "variant": "", "compared": ""}
    row |= {"method": "MaPLe", "trainer": "MaPLe", "backbone": "ViT-B/16", "shots": 16, "seed": 1}
    return {**row, "dataset": dataset, "quantity": quantity, "value": value, **more}


def only_table(rows: list[dict]) -> tuple[str, pd.DataFrame]:
    ((title, table),) = compare_with_published(pd.DataFrame(rows, columns=SCORE))
    return title, table.set_index(["data set", "quantity"])


def test_ours_is_the_mean_over_seeds_and_the_difference_ours_minus_published():
    rows = [score("EuroSAT", "base", value, seed=s) for s, value in [(1, 90.0), (2, 92.0)]]
    title, table = only_table(rows)
    row = table.loc["EuroSAT", "base"]
    assert (row["ours"], row["ours sd"], row["seeds"]) == (91, 1, 2)
    assert row["difference"] == pytest.approx(91 - 94.07)
    assert "MaPLe paper, Table 3" in title
    assert "NOT THE SAME SETTING" not in title


@pytest.mark.parametrize("method", ["MaPLe", "VPT"])  # of VPT only the average is printed
def test_an_average_of_ours_needs_every_data_set_of_the_published_one(method):
    _, figures = load_figures("base2new")["MaPLe"]
    more = {"method": method, "trainer": method}
    same = [score(d, q, v, **more) for (d, q), v in figures.items() if d != "average"]
    _, table = only_table(same)
    for part in BASE_NEW_HM:  # ours are the published rows
        assert table.loc["average", part]["ours"] == pytest.approx(
            figures["average", part], abs=0.01
        )
    _, table = only_table([row for row in same if row["dataset"] != "EuroSAT"])
    assert np.isnan(table.loc["average", "HM"]["ours"])


def test_the_source_counts_as_itself_and_not_in_the_average():
    rows = [score("ImageNet", "ImageNet (source)", 70.0, protocol="dg")]
    for name in ("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"):
        rows.append(score(name, name, 50.0, protocol="dg"))
    rows.append(score("average", "average", 99.0, protocol="dg"))  # of whatever targets were run
    _, table = only_table(rows)
    assert table.loc["ImageNet", "accuracy"]["ours"] == 70
    assert table.loc["average", "accuracy"]["ours"] == 50


@pytest.mark.parametrize(
    ("row", "difference"),
    [
        (score("EuroSAT", "base", 1.0, backbone="tiny"), "ours tiny; published ViT-B/16"),
        (score("EuroSAT", "base", 1.0, shots=1), "ours 1 shot; published 16 shots"),
        (
            score("Caltech101", "Caltech101 (source)", 1.0, protocol="xd"),
            "ours Caltech101; published ImageNet",
        ),
    ],
)
def test_another_setting_than_the_published_one_is_named(row, difference):
    title, table = only_table([row])
    assert f"NOT THE SAME SETTING: {difference}" in title
    if row["protocol"] == "xd":
        assert table["ours"].isna().all()


def test_the_tables_in_the_documentation_hold_the_same_figures():
    lines = (ROOT / "docs" / "protocols.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    for trainer, (_, figures) in load_figures("base2new").items():
        if ("average", "HM") in figures:
            printed = [figures.get(("average", part)) for part in BASE_NEW_HM]
            assert [trainer, *("-" if v is None else f"{v:.2f}" for v in printed)] in rows
    for trainer, (_, figures) in load_figures("fewshot").items():
        assert [trainer, *(f"{figures['average', shots]:.2f}" for shots in SHOTS)] in rows
    cross, variants = load_figures("xd"), load_figures("dg")
    for trainer, (_, figures) in variants.items():
        other = cross.get(trainer, ("", {}))[1].get(("average", "accuracy"))
        printed = [figures["ImageNet", "accuracy"], other, figures["average", "accuracy"]]
        assert [trainer, *("-" if v is None else f"{v:.2f}" for v in printed)] in rows
