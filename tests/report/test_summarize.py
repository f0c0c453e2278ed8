"""The command `causalclip summarize`: statistics, notes and formats."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causalclip.report import summarize
from causalclip.report.seeds import compare_methods, holm, over_seeds, signed_rank


@pytest.fixture
def two_seeds(tmp_path, write_pair):
    write_pair(90.0, 60.0, seed=1)
    write_pair(80.0, 80.0, seed=2)
    return tmp_path


@pytest.fixture
def output(capsys):
    """A function (*arguments, status) -> what the command prints and what it says on stderr."""

    def call(*arguments, status=0):
        assert summarize.main([str(argument) for argument in arguments]) == status
        return capsys.readouterr()

    return call


# Seeds


def test_spread_is_the_population_deviation_and_the_interval_that_of_scipy():
    values = np.array([90.0, 80.0, 70.0])
    rows = pd.DataFrame({"method": "CDC", "quantity": "base", "value": values})
    rows.loc[3] = ["CoOp", "base", 60.0]
    three, one = over_seeds(rows).iloc
    assert (three["seeds"], three["base"]) == (3, 80)
    assert three["base sd"] == pytest.approx(values.std())
    low, high = stats.t.interval(0.95, 2, loc=80, scale=stats.sem(values))
    assert three["base ci95"] == pytest.approx((high - low) / 2)
    assert np.isnan(one["base ci95"])


@pytest.mark.parametrize("n", [3, 5, 8])
def test_signed_rank_test_is_scipys(n):
    rng = np.random.default_rng(n)
    differences = rng.normal(1, 1, n)
    test = signed_rank(differences)
    assert test["p"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    smallest = stats.wilcoxon(np.arange(1, n + 1)).pvalue  # all of one sign: as clear as can be
    assert test["smallest p"] == pytest.approx(smallest)
    same = signed_rank(np.zeros(n))
    assert (same["p"], same["ties"], same["smallest p"]) == (1, n, 1)


def test_p_values_are_corrected_by_holm():
    # By hand: 3 x 0.01; 2 x 0.02 and 1 x 0.03, which may not be below the 0.04 before it.
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == [1, 1]


def test_comparison_pairs_seeds_and_data_sets(tmp_path, write_run, output):
    rng = np.random.default_rng(0)
    first, second = rng.uniform(50, 90, (2, 3, 2)).round(2)
    for i, dataset in enumerate("ABC"):
        for j, seed in enumerate((1, 2)):
            for trainer, values in (("CDC", first), ("CoOp", second)):
                write_run(dataset, values[i, j], dataset=dataset, seed=seed, trainer=trainer)
    write_run("A", 1.0, dataset="A", seed=3)  # CoOp has no seed 3: no pair
    printed = output(tmp_path, "--compare", "CDC", "CoOp", "--format", "json")
    every, by_set = json.loads(printed.out)[0]["rows"]
    assert every["n"] == 6
    assert every["mean difference"] == pytest.approx((first - second).mean())
    assert every["p"] == pytest.approx(stats.wilcoxon((first - second).ravel()).pvalue)
    assert by_set["n"] == 3
    assert by_set["p"] == pytest.approx(stats.wilcoxon((first - second).mean(1)).pvalue)
    assert "with 3 pairs that differ, p cannot be below 0.25" in printed.err


def test_methods_are_listed_so_that_commas_in_their_names_do_not_mislead():
    methods = pd.DataFrame({"method": ["CDC", "CDC, averaging"]})
    with pytest.raises(ValueError, match="unknown method 'CoOp'; .* hold: CDC; CDC, averaging$"):
        compare_methods(methods, "CDC", "CoOp")


# Notes


def test_a_collapsed_seed_is_named(tmp_path, write_pair, output):
    for seed, base in [(1, 12.0), (2, 15.0), (3, 63.0)]:  # two of three: the median has collapsed
        write_pair(base, 60.0, seed=seed)
    lines = [line for line in output(tmp_path).out.splitlines() if "collapsed?" in line]
    assert [line.split(":")[0].split("/")[-1] for line in lines] == ["seed1", "seed2"]


def test_a_half_without_its_other_half_is_left_out_and_named(two_seeds, write_run, output):
    lone = write_run("Set/base", 99.0, subsample="base", seed=3)
    printed = output(two_seeds).out
    assert f"{lone}: no result on the new classes" in printed
    assert "85.0 ± 5.0" in printed


def test_of_results_of_one_run_the_newest_counts_and_the_others_are_named(
    tmp_path, write_run, output
):
    write_run("new", 50.0, time="2026-01-02T00:00:00+00:00")
    old = write_run("old", 51.0, time="2026-01-01T00:00:00+00:00")
    printed = output(tmp_path).out
    assert "50.0" in printed and "51.0" not in printed
    assert f"{old}: a newer run of the same method, data and seed counts" in printed


def test_ours_beside_the_published_figures_and_what_has_none(tmp_path, write_pair, output):
    write_pair(80.0, 70.0, dataset="EuroSAT", trainer="MaPLe", backbone="ViT-B/16")
    write_pair(80.0, 70.0, dataset="EuroSAT", trainer="Mine")
    printed = output(tmp_path, "--against").out
    rows = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines()]
    (row,) = [row for row in rows if row[1:3] == ["EuroSAT", "base"]]
    assert row[-4:-1] == ["80.00", "94.07", "-14.07"]
    assert "no published figures of Mine for base-to-novel" in printed


# Formats and options

MARKDOWN = """
Few-shot: Set (mean ± standard deviation over seeds)

| method   |   seeds |    4 shots |
|----------|---------|------------|
| CDC      |       2 | 55.0 ± 5.0 |
| CoOp     |       1 |       40.0 |
"""


def test_markdown_has_mean_and_deviation_and_the_mean_alone_of_a_single_seed(
    tmp_path, write_run, output
):
    for seed, accuracy in ((1, 50.0), (2, 60.0)):
        write_run("one", accuracy, seed=seed, shots=4)
    write_run("one", 40.0, trainer="CoOp", shots=4)
    assert output(tmp_path).out == MARKDOWN


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--format", "latex"], r"CDC & 2 & 85.0 $\pm$ 5.0 & 70.0 $\pm$ 10.0"),
        (["--format", "csv"], "\nCDC,2,85.0,5.0,63.5"),
        (["--ci95"], "mean ± half of the 95 % interval, Student t"),
        (["--ci95"], f"85.0 ± {stats.t.ppf(0.975, 1) * np.std([90, 80], ddof=1) / 2**0.5:.1f}"),
        (["--format", "latex", "--ci95"], r"85.0 $\pm$ 63.5"),
    ],
)
def test_other_formats_and_the_interval_hold_the_numbers(two_seeds, output, options, text):
    assert text in output(two_seeds, *options).out


def test_protocol_and_trainer_are_selected_and_json_is_one_document(
    tmp_path, write_run, write_target, output
):
    write_run("source", 70.0, dataset="ImageNet")
    write_target("UCF101", 60.0)
    write_target("ImageNetA", 40.0)
    write_run("fewshot", 50.0, trainer="CoOp")

    def titles(*options):
        tables = json.loads(output(tmp_path, "--format", "json", *options).out)
        return [table["title"].split(":")[0] for table in tables]

    assert titles() == ["Cross-dataset", "Domain generalisation", "Few-shot"]
    assert titles("--methods", "CDC") == ["Cross-dataset", "Domain generalisation"]
    assert titles("--protocol", "xd") == ["Cross-dataset"]


def test_curves_are_written_as_png_and_pdf(tmp_path, write_run, output):
    for shots in (1, 4):
        write_run(shots, 50.0, shots=shots)
    printed = output(tmp_path, "--plot", tmp_path / "figures").out
    assert "wrote" in printed
    assert (tmp_path / "figures" / "few_shot_set.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figures" / "few_shot_set.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "figures"], "no few-shot result to plot"),
        (["--compare", "CDC", "CoOP"], "unknown method 'CoOP'; the runs hold: CDC"),
        (["--protocol", "dg"], "no finished runs of Domain generalisation"),
        (["--methods", "CoOp"], "no finished runs below"),
        (["--conformal"], "run with TEST.CONFORMAL 0.1"),
    ],
)
def test_what_is_missing_is_an_error_that_names_it(two_seeds, output, options, message):
    assert message in output(two_seeds, *options, status=2).err


def test_a_folder_without_runs_is_an_error_that_names_it(tmp_path, output):
    assert f"no finished runs below {tmp_path}" in output(tmp_path, status=2).err
    assert "none is not a folder" in output(tmp_path / "none", status=2).err


# Conformal sets


def test_conformal_sets_have_a_table_for_each_test(write_run, output, tmp_path):
    sets = {"conformal_level": 90.0, "lac_coverage": 91.0, "lac_size": 1.5}
    sets |= {"aps_coverage": 93.0, "aps_size": 2.0}
    for seed, size in ((1, 1.0), (2, 2.0)):
        metrics = {"accuracy": 80.0, "ece": 5.0, **sets, "lac_size": size}
        write_run("base", 80.0, seed=seed, subsample="base", metrics=metrics)
    write_run("other", 70.0, trainer="CoOp")  # without
    out = output(tmp_path, "--conformal").out
    assert "Conformal sets of 90 %: Set, base classes, 16 shots" in out
    row = next(line for line in out.splitlines() if "CDC" in line)
    assert [cell.strip() for cell in row.split("|")[2:7]] == [
        *("2", "91.0 ± 0.0", "1.5 ± 0.5", "93.0 ± 0.0", "2.0 ± 0.0")
    ]
    assert "CoOp" not in out
