"""Tables from results.json files whose numbers are known."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "summarize.py"
spec = importlib.util.spec_from_file_location("summarize", SCRIPT)
summarize = importlib.util.module_from_spec(spec)
spec.loader.exec_module(summarize)


def write_run(root, folder, *, subsample="all", accuracy, seed=1, target=(), parts=None, **more):
    metrics = {"accuracy": accuracy, "ece": 5.0}
    record = {
        "trainer": "CDC",
        "dataset": "Set",
        "shots": 16,
        "seed": seed,
        "subsample_classes": subsample,
        "source_domains": [],
        "target_domains": list(target),
        "classnames": ["a", "b"],
        "metrics": metrics,
        "variants": {},
        "parts": parts or {},
        "training": {"seconds": 10.0},
        **more,
    }
    directory = root / folder / "CDC" / "cfg" / f"seed{seed}"
    directory.mkdir(parents=True)
    (directory / "results.json").write_text(json.dumps(record))
    uncertainty = np.linspace(0, 1, 5) + (2 if subsample == "new" else 0)
    np.savez(directory / "predictions.npz", uncertainty=uncertainty)


@pytest.fixture
def base_to_novel(tmp_path):
    for seed, base, new in [(1, 90.0, 60.0), (2, 80.0, 80.0)]:
        write_run(tmp_path, "train_base", subsample="base", accuracy=base, seed=seed)
        write_run(tmp_path, "test_new", subsample="new", accuracy=new, seed=seed)
    return tmp_path


def only_table(root) -> pd.DataFrame:
    ((_, table),) = summarize.tables(summarize.name_methods(summarize.load_runs(root)))
    return table


def test_base_new_and_their_harmonic_mean_are_averaged_over_seeds(base_to_novel):
    row = only_table(base_to_novel).iloc[0]
    assert row["seeds"] == 2
    assert (row["base"], row["new"]) == (85, 70)
    assert row["HM"] == pytest.approx((2 * 90 * 60 / 150 + 80) / 2)
    assert row["base sd"] == pytest.approx(5)  # population, as the family's parser
    assert row["AUROC"] == 100  # every new image is more uncertain than every base image


def test_the_average_over_data_sets_gives_both_harmonic_means(base_to_novel):
    write_run(base_to_novel, "o/train_base", subsample="base", accuracy=40.0, dataset="Other")
    write_run(base_to_novel, "o/test_new", subsample="new", accuracy=60.0, dataset="Other")
    found = dict(summarize.tables(summarize.load_runs(base_to_novel)))
    row = found["Base-to-novel: average over 2 data sets"].iloc[0]
    base, new = (85 + 40) / 2, (70 + 60) / 2
    assert row["HM of averages"] == pytest.approx(2 * base * new / (base + new))
    assert row["average of HMs"] == pytest.approx(((72 + 80) / 2 + 48) / 2)


def test_leave_one_domain_out_has_a_column_per_target_their_average_and_the_worst(tmp_path):
    for target, accuracy in [("ink", 50.0), ("neon", 70.0)]:
        write_run(tmp_path, target, accuracy=accuracy, target=[target])
    row = only_table(tmp_path).iloc[0]
    assert (row["ink"], row["neon"], row["average"], row["worst"]) == (50, 70, 60, 50)


@pytest.mark.parametrize("style", ["markdown", "latex", "csv", "json"])
def test_every_format_holds_the_numbers(base_to_novel, capsys, style):
    assert summarize.main([str(base_to_novel), "--format", style]) == 0
    printed = capsys.readouterr().out
    assert "CDC" in printed
    assert "85.0" in printed


def test_a_folder_without_runs_is_an_error_that_names_it(tmp_path, capsys):
    assert summarize.main([str(tmp_path)]) == 2
    assert f"no finished runs below {tmp_path}" in capsys.readouterr().err
