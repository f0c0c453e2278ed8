"""Tables from results.json files whose numbers are known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causalclip.report import summarize
from causalclip.report.runs import load_runs
from causalclip.report.seeds import compare, over_seeds, signed_rank
from causalclip.report.tables import scores


def tables(root) -> dict[str, pd.DataFrame]:
    return dict(summarize.tables(scores(load_runs(root))))


def only_row(root) -> pd.Series:
    (table,) = tables(root).values()
    (row,) = table.iloc
    return row


def test_domains_and_halves_of_few_shot_runs_are_tables_of_their_own(tmp_path, write_run):
    more = {"protocol": "fewshot"}
    write_run("whole", 40.0, **more)
    write_run("half", 60.0, subsample="base", **more)
    write_run("domain", 80.0, target=["sketch"], seed=2, **more)
    means = {name: table["16 shots"].tolist() for name, table in tables(tmp_path).items()}
    assert means["Few-shot: Set"] == [40]
    assert means["Few-shot: Set, base classes"] == [60]
    assert means["Few-shot: Set, sketch"] == [80]


# Base-to-novel


@pytest.fixture
def two_seeds(tmp_path, write_pair):
    write_pair(90.0, 60.0, seed=1)
    write_pair(80.0, 80.0, seed=2)
    return tmp_path


def test_base_new_and_their_harmonic_mean_are_averaged_over_seeds(two_seeds):
    row = only_row(two_seeds)
    assert row["seeds"] == 2
    assert (row["base"], row["new"]) == (85, 70)
    assert row["HM"] == pytest.approx((2 * 90 * 60 / 150 + 80) / 2)
    assert row["AUROC"] == 100  # every new image is more uncertain than every base image


def test_spread_is_the_population_deviation_and_the_interval_that_of_scipy(two_seeds, write_pair):
    write_pair(70.0, 50.0, seed=3)
    row = only_row(two_seeds)
    values = np.array([90.0, 80.0, 70.0])
    assert row["base sd"] == pytest.approx(values.std())
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert row["base ci95"] == pytest.approx((high - low) / 2)


def test_a_single_seed_has_no_interval(tmp_path, write_pair, capsys):
    write_pair(90.0, 60.0)
    assert np.isnan(only_row(tmp_path)["base ci95"])
    summarize.main([str(tmp_path)])
    assert "90.0 ±" not in capsys.readouterr().out


def test_the_average_over_data_sets_gives_both_harmonic_means(two_seeds, write_pair):
    write_pair(40.0, 60.0, dataset="Other")
    row = tables(two_seeds)["Base-to-novel: average over 2 data sets"].iloc[0]
    base, new = (85 + 40) / 2, (70 + 60) / 2
    assert row["data sets"] == 2
    assert row["HM of averages"] == pytest.approx(2 * base * new / (base + new))
    assert row["average of HMs"] == pytest.approx(((72 + 80) / 2 + 48) / 2)


def test_a_half_without_its_other_half_is_left_out_and_named(two_seeds, write_run, capsys):
    lone = write_run("Set/base", 99.0, subsample="base", seed=3)
    summarize.main([str(two_seeds)])
    printed = capsys.readouterr().out
    assert f"{lone}: no result on the new classes" in printed
    assert only_row(two_seeds)["base"] == 85


def test_a_trainer_with_two_configurations_is_two_methods(tmp_path, write_pair):
    for name in ("m2", "m4"):
        write_pair(90.0, 60.0, config_name=name)
    (table,) = tables(tmp_path).values()
    assert list(table["method"]) == ["CDC (m2)", "CDC (m4)"]


# One source, other data sets


@pytest.fixture
def crossed(tmp_path, write_run, write_target):
    write_run("source", 70.0, dataset="ImageNet")
    for dataset, accuracy in [("UCF101", 60.0), ("Caltech101", 90.0), ("ImageNetA", 40.0)]:
        write_target(dataset, accuracy)
    return tmp_path


def test_cross_dataset_has_the_source_the_targets_in_the_papers_order_and_their_average(crossed):
    row = tables(crossed)["Cross-dataset: from ImageNet, 16 shots"].iloc[0]
    means = [column for column in row.index if " sd" not in column and " ci95" not in column]
    assert means[2:] == ["ImageNet (source)", "Caltech101", "UCF101", "average"]
    assert row["ImageNet (source)"] == 70
    assert row["average"] == 75


def test_variants_of_imagenet_are_a_table_of_their_own(crossed):
    row = tables(crossed)["Domain generalisation: from ImageNet, 16 shots"].iloc[0]
    assert (row["ImageNetA"], row["average"]) == (40, 40)
    assert "UCF101" not in row


def test_a_source_run_alone_is_no_few_shot_result(crossed):
    assert not any(title.startswith("Few-shot") for title in tables(crossed))


def test_an_average_is_given_only_to_who_has_every_target(crossed, write_target):
    write_target("UCF101", 65.0, trainer="MaPLe")
    table = tables(crossed)["Cross-dataset: from ImageNet, 16 shots"].set_index("method")
    assert table.loc["CDC", "average"] == 75
    assert np.isnan(table.loc["MaPLe", "average"])


def test_a_run_evaluated_again_on_its_own_data_is_counted_once(tmp_path, write_run, write_target):
    write_run("trained", 70.0)
    write_target("Set", 70.0, source="Set")
    assert only_row(tmp_path)["seeds"] == 1


# Few-shot


@pytest.fixture
def few_shot(tmp_path, write_run):
    for shots in (16, 1):
        for seed in (1, 2):
            for dataset, more in (("A", 0), ("B", 20)):
                write_run(
                    f"{dataset}/{shots}",
                    shots + more + seed,
                    shots=shots,
                    seed=seed,
                    dataset=dataset,
                )
    return tmp_path


def test_few_shot_tables_have_a_column_for_each_number_of_shots(few_shot):
    made = tables(few_shot)
    row = made["Few-shot: B"].iloc[0]
    assert list(row.index[2::3]) == ["1 shot", "16 shots"]
    assert (row["1 shot"], row["16 shots"]) == (22.5, 37.5)
    average = made["Few-shot: average over 2 data sets"].iloc[0]
    assert (average["1 shot"], average["16 shots"]) == (12.5, 27.5)


def test_configurations_that_differ_between_shots_are_one_method(tmp_path, write_run):
    for shots in (1, 16):
        write_run(str(shots), 50.0, shots=shots, config_name=f"ep{shots}")
    assert only_row(tmp_path)["method"] == "CDC"


def test_curves_are_written_as_png_and_pdf(few_shot, tmp_path):
    folder = tmp_path / "figures"
    assert summarize.main([str(few_shot), "--plot", str(folder)]) == 0
    assert (folder / "few_shot_a.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "few_shot_average_over_2_data_sets.pdf").read_bytes().startswith(b"%PDF")


def test_a_curve_goes_through_the_means_over_seeds(few_shot):
    from matplotlib.figure import Figure

    from causalclip.report.plots_study import draw_fewshot

    rows, figure = scores(load_runs(few_shot)), Figure()
    draw_fewshot(figure, rows[rows.table == "Few-shot: A"])
    (container,) = figure.axes[0].containers
    x, y = container.lines[0].get_data()
    assert (list(x), list(y)) == ([1, 16], [2.5, 17.5])


def test_without_few_shot_results_there_is_nothing_to_plot(two_seeds, tmp_path, capsys):
    assert summarize.main([str(two_seeds), "--plot", str(tmp_path / "figures")]) == 2
    assert "no few-shot result to plot" in capsys.readouterr().err


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


def test_several_domain_sets_stand_side_by_side(tmp_path, write_run):
    for dataset, accuracy in [("PACS", 90.0), ("VLCS", 70.0)]:
        for target in ("one", "two"):
            write_run(f"{dataset}/{target}", accuracy, target=[target], dataset=dataset)
    row = tables(tmp_path)["Leave one domain out: all data sets, 16 shots"].iloc[0]
    assert (row["PACS"], row["VLCS"], row["average"]) == (90, 70, 80)


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
    found = scores(load_runs(tmp_path), heldout=True).set_index(["protocol", "method", "quantity"])
    assert found.value["openclass", "CDC", "base"] == 90
    assert found.value["lodo", "CDC", "ink"] == 10
    if recorded:
        assert found.value["openclass", "CDC, averaging", "base"] == 91
        assert found.value["openclass", "CDC, averaging", "all"] == 55
        assert found.value["lodo", "CDC, averaging", "ink"] == 11
    else:
        assert set(found.index.get_level_values("method")) == {"CDC"}


# Can it be trusted


def test_a_collapsed_seed_is_named(tmp_path, write_pair, capsys):
    for seed, base in [(1, 12.0), (2, 15.0), (3, 63.0)]:  # two of three: the median has collapsed
        write_pair(base, 60.0, seed=seed)
    summarize.main([str(tmp_path)])
    warned = [line for line in capsys.readouterr().out.splitlines() if "collapsed?" in line]
    assert [line.split(":")[0].split("/")[-1] for line in warned] == ["seed1", "seed2"]


def test_methods_are_listed_so_that_commas_in_their_names_do_not_mislead():
    found = pd.DataFrame({"method": ["CDC", "CDC, averaging"]})
    with pytest.raises(ValueError, match="hold: CDC; CDC, averaging$"):
        compare(found, "CDC", "CoOp")


def test_results_that_stand_for_the_same_run_are_named(tmp_path, write_run, capsys):
    write_run("one", 50.0)
    write_run("two", 51.0)
    summarize.main([str(tmp_path)])
    assert capsys.readouterr().out.count("another run of the same method") == 2


@pytest.mark.parametrize("n", [3, 5, 8])
def test_signed_rank_test_is_scipys(n):
    rng = np.random.default_rng(n)
    differences = rng.normal(1, 1, n)
    found = signed_rank(differences)
    assert found["p"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    smallest = stats.wilcoxon(np.arange(1, n + 1)).pvalue  # all of one sign: as clear as can be
    assert found["smallest p"] == pytest.approx(smallest)


def test_methods_that_agree_everywhere_do_not_differ():
    found = signed_rank(np.zeros(4))
    assert (found["p"], found["ties"], found["smallest p"]) == (1, 4, 1)


def test_comparison_pairs_seeds_and_data_sets(tmp_path, write_run, capsys):
    rng = np.random.default_rng(0)
    first, second = rng.uniform(50, 90, (2, 3, 2)).round(2)
    for i, dataset in enumerate("ABC"):
        for j, seed in enumerate((1, 2)):
            for trainer, values in (("CDC", first), ("CoOp", second)):
                write_run(dataset, values[i, j], dataset=dataset, seed=seed, trainer=trainer)
    write_run("A", 1.0, dataset="A", seed=3)  # CoOp has no seed 3: no pair
    assert summarize.main([str(tmp_path), "--compare", "CDC", "CoOp", "--format", "json"]) == 0
    captured = capsys.readouterr()
    every, by_set = json.loads(captured.out)[0]["rows"]
    assert every["n"] == 6
    assert every["mean difference"] == pytest.approx((first - second).mean())
    assert every["p"] == pytest.approx(stats.wilcoxon((first - second).ravel()).pvalue)
    assert by_set["n"] == 3
    assert by_set["p"] == pytest.approx(stats.wilcoxon((first - second)[1:].mean(1)).pvalue, abs=1)
    assert "with 3 pairs that differ, p cannot be below 0.25" in captured.err


def test_ours_beside_the_published_figures_and_what_has_none(tmp_path, write_pair, capsys):
    write_pair(80.0, 70.0, dataset="EuroSAT", trainer="MaPLe", backbone="ViT-B/16")
    write_pair(80.0, 70.0, dataset="EuroSAT", trainer="Mine")
    assert summarize.main([str(tmp_path), "--against"]) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines()]
    (row,) = [row for row in rows if row[1:3] == ["EuroSAT", "base"]]
    assert row[-4:-1] == ["80.00", "94.07", "-14.07"]
    assert "no published figures of Mine for base-to-novel" in printed


def test_an_unknown_method_to_compare_lists_those_there_are(two_seeds, capsys):
    assert summarize.main([str(two_seeds), "--compare", "CDC", "CoOP"]) == 2
    assert "unknown method 'CoOP'; the runs hold: CDC" in capsys.readouterr().err


# Formats


@pytest.mark.parametrize("style", ["markdown", "latex", "csv", "json"])
def test_every_format_holds_the_numbers(two_seeds, capsys, style):
    assert summarize.main([str(two_seeds), "--format", style]) == 0
    printed = capsys.readouterr().out
    assert "CDC" in printed
    assert "85.0" in printed


def test_json_is_one_document_whatever_the_number_of_tables(crossed, capsys):
    summarize.main([str(crossed), "--format", "json"])
    titles = [table["title"] for table in json.loads(capsys.readouterr().out)]
    assert len(titles) == 2


def test_the_interval_is_shown_on_request_and_said_so(two_seeds, capsys):
    summarize.main([str(two_seeds), "--ci95"])
    printed = capsys.readouterr().out
    assert "95 % interval, Student t" in printed
    half = stats.t.ppf(0.975, 1) * np.std([90, 80], ddof=1) / 2**0.5
    assert f"85.0 ± {half:.1f}" in printed


def test_one_protocol_and_one_trainer_can_be_asked_for(crossed, write_run, capsys):
    write_run("fewshot", 50.0, trainer="CoOp")
    summarize.main([str(crossed), "--protocol", "xd", "--trainer", "CDC"])
    printed = capsys.readouterr().out
    assert "Cross-dataset" in printed
    assert "Domain generalisation" not in printed
    assert "CoOp" not in printed


def test_a_folder_without_runs_is_an_error_that_names_it(tmp_path, capsys):
    assert summarize.main([str(tmp_path)]) == 2
    assert f"no finished runs below {tmp_path}" in capsys.readouterr().err


def test_a_protocol_without_runs_is_an_error_that_names_it(two_seeds, capsys):
    assert summarize.main([str(two_seeds), "--protocol", "dg"]) == 2
    assert "no finished runs of Domain generalisation" in capsys.readouterr().err
