"""Tables of every protocol from results.json files whose numbers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from causalclip.plots.study_plots import draw_fewshot
from causalclip.report.formats import best_cells, text_cells
from causalclip.report.runs import load_runs
from causalclip.report.seeds import over_seeds
from causalclip.report.tables import result_tables, scores


def tables(root) -> dict[str, pd.DataFrame]:
    return dict(result_tables(scores(load_runs(root))))


def only_row(root) -> pd.Series:
    (table,) = tables(root).values()
    (row,) = table.iloc
    return row


def test_base_new_and_their_harmonic_mean_are_averaged_over_seeds(tmp_path, write_pair):
    write_pair(90.0, 60.0, seed=1)
    write_pair(80.0, 80.0, seed=2)
    row = only_row(tmp_path)
    assert (row["seeds"], row["base"], row["new"]) == (2, 85, 70)
    assert row["HM"] == pytest.approx((2 * 90 * 60 / 150 + 80) / 2)
    assert row["AUROC"] == 100  # every new image is more uncertain than every base image
    write_pair(40.0, 60.0, dataset="Other")
    row = tables(tmp_path)["Base-to-novel: average over 2 data sets"].iloc[0]
    base, new = (85 + 40) / 2, (70 + 60) / 2
    assert row["data sets"] == 2
    assert row["HM of averages"] == pytest.approx(2 * base * new / (base + new))
    assert row["average of HMs"] == pytest.approx(((72 + 80) / 2 + 48) / 2)


def test_a_result_without_a_calibration_error_keeps_its_accuracies(tmp_path, write_run):
    write_run("base", 90.0, subsample="base", metrics={"accuracy": 90.0})
    write_run("new", 60.0, subsample="new")
    row = only_row(tmp_path)
    assert (row["base"], row["new"], row["ECE new"]) == (90, 60, 5) and "ECE base" not in row


# One source, other data sets


def test_targets_come_in_the_papers_order_with_their_average(tmp_path, write_run, write_target):
    write_run("source", 70.0, dataset="ImageNet")
    for dataset, accuracy in [("UCF101", 60.0), ("Caltech101", 90.0), ("ImageNetA", 40.0)]:
        write_target(dataset, accuracy)
    write_target("UCF101", 65.0, trainer="MaPLe")
    made = tables(tmp_path)
    assert not any(title.startswith("Few-shot") for title in made)  # the source alone is none
    table = made["Cross-dataset: from ImageNet, 16 shots"].set_index("method")
    means = [column for column in table if not column.endswith((" sd", " ci95"))]
    assert means[1:] == ["ImageNet (source)", "Caltech101", "UCF101", "average"]
    assert list(table.loc["CDC", means[1:]]) == [70, 90, 60, 75]
    assert np.isnan(table.loc["MaPLe", "average"])  # it lacks a target
    row = made["Domain generalisation: from ImageNet, 16 shots"].iloc[0]
    assert (row["ImageNetA"], row["average"]) == (40, 40)
    assert "UCF101" not in row


def test_a_run_evaluated_again_on_its_own_data_is_counted_once(tmp_path, write_run, write_target):
    write_run("trained", 70.0)
    write_target("Set", 70.0, source="Set")
    assert only_row(tmp_path)["seeds"] == 1


# Few-shot


def test_few_shot_tables_have_a_column_for_each_number_of_shots(tmp_path, write_run):
    for shots in (16, 1):
        for seed in (1, 2):
            for dataset, more in (("A", 0), ("B", 20)):
                place, accuracy = f"{dataset}/{shots}", shots + more + seed
                write_run(place, accuracy, shots=shots, seed=seed, dataset=dataset)
    made = tables(tmp_path)
    row = made["Few-shot: B"].iloc[0]
    assert list(row.index[2::3]) == ["1 shot", "16 shots"]
    assert (row["1 shot"], row["16 shots"]) == (22.5, 37.5)
    average = made["Few-shot: average over 2 data sets"].iloc[0]
    assert (average["1 shot"], average["16 shots"]) == (12.5, 27.5)
    rows, figure = scores(load_runs(tmp_path)), Figure()
    draw_fewshot(figure, rows[rows.table == "Few-shot: A"])
    x, y = figure.axes[0].containers[0].lines[0].get_data()
    assert (list(x), list(y)) == ([1, 16], [2.5, 17.5])


def test_domains_and_halves_of_few_shot_runs_are_tables_of_their_own(tmp_path, write_run):
    write_run("whole", 40.0, protocol="fewshot")
    write_run("half", 60.0, protocol="fewshot", subsample="base")
    write_run("domain", 80.0, protocol="fewshot", target=["sketch"], seed=2)
    made = tables(tmp_path)
    for part, mean in {"": 40, ", base classes": 60, ", sketch": 80}.items():
        assert made[f"Few-shot: Set{part}"]["16 shots"][0] == mean


def test_configurations_that_differ_between_shots_are_one_method(tmp_path, write_run):
    for shots in (1, 16):
        write_run(shots, 50.0, shots=shots, config_name=f"ep{shots}")
    assert only_row(tmp_path)["method"] == "CDC"


# Domains


def test_leave_one_domain_out_has_a_column_per_target_their_average_and_the_worst(
    tmp_path, write_run
):
    for target, accuracy in [("ink", 50.0), ("neon", 70.0)]:
        write_run(target, accuracy, target=[target], parts={"heldout": {"accuracy": 10.0}})
    row = only_row(tmp_path)
    assert (row["ink"], row["neon"], row["average"], row["worst"]) == (50, 70, 60, 50)
    heldout = over_seeds(scores(load_runs(tmp_path), heldout=True)).iloc[0]
    assert (heldout["ink"], heldout["average"]) == (10, 10)
    write_run("VLCS", 90.0, target=["one"], dataset="VLCS")
    row = tables(tmp_path)["Leave one domain out: all data sets, 16 shots"].iloc[0]
    assert (row["Set"], row["VLCS"], row["average"]) == (60, 90, 75)


def test_open_class_averages_targets_and_takes_the_harmonic_mean_of_the_averages(
    tmp_path, write_run
):
    for target, base, other in [("ink", 90.0, 30.0), ("neon", 70.0, 50.0)]:
        parts = {"base": {"accuracy": base}, "open": {"accuracy": other}}
        write_run(target, 60.0, target=[target], parts=parts)
    row = only_row(tmp_path)
    assert (row["base"], row["open"], row["all"]) == (80, 40, 60)
    assert row["HM"] == pytest.approx(2 * 80 * 40 / 120)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_variant_never_borrows_the_parts_of_the_methods_own_reading(
    tmp_path, write_run, recorded
):
    parts = {"base": {"accuracy": 90.0}, "open": {"accuracy": 30.0}, "heldout": {"accuracy": 10.0}}
    other = {part: {"accuracy": metrics["accuracy"] + 1} for part, metrics in parts.items()}
    more = {"variant_parts": {"averaging": other}} if recorded else {}
    variants = {"averaging": {"accuracy": 55.0, "ece": 5.0}}
    for place, own in (("open", parts), ("lodo", {"heldout": parts["heldout"]})):
        write_run(place, 60.0, target=["ink"], parts=own, variants=variants, **more)
    keys = ["protocol", "method", "quantity"]
    values = scores(load_runs(tmp_path), heldout=True).set_index(keys)["value"].to_dict()
    assert values["openclass", "CDC", "base"] == 90
    assert values["lodo", "CDC", "ink"] == 10
    of_variant = {key: value for key, value in values.items() if key[1] == "CDC, averaging"}
    assert bool(of_variant) == recorded
    if recorded:
        assert of_variant["openclass", "CDC, averaging", "base"] == 91
        assert of_variant["openclass", "CDC, averaging", "all"] == 55
        assert of_variant["lodo", "CDC, averaging", "ink"] == 11


def test_a_method_that_has_used_the_test_images_is_in_no_comparison(write_pair, tmp_path):
    for trainer, accuracy, details in (
        ("CoOp", 70.0, {}),
        ("CDC", 60.0, {}),
        ("TDA", 90.0, {"test_time": True}),
        ("TPT", 80.0, {"test_time": True}),
    ):
        write_pair(accuracy, accuracy, trainer=trainer, place=trainer, details=details)
    rows = scores(load_runs(tmp_path))
    assert set(rows.method[rows.compared != ""]) == {"CoOp", "CDC"}
    (_, table), *_ = result_tables(rows)
    cells = text_cells(table)
    marked = best_cells(table, cells)
    assert table["HM"][table["method"] == "TDA, test-time"].item() == 90
    assert list(table["method"][marked["HM"]]) == ["CoOp"]
