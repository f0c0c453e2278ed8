"""Whatever lies in a folder, n is the number of seeds: tables against a slow oracle."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalclip.records.predictions import Predictions
from causalclip.records.results import Result
from causalclip.report.runs import load_runs
from causalclip.report.tables import result_tables, scores

TRAINING = {
    "method": st.sampled_from(["CDC", "CoOp"]),
    "n": st.sampled_from([1, 2]),  # a setting that changes the results
    "seed": st.sampled_from([1, 2, 3]),
    "data": st.sampled_from(["old", "new"]),  # the pictures were exchanged meanwhile
    "label": st.sampled_from(["", "base2new", "fewshot", "xd"]),
    "workers": st.integers(0, 3),  # changes nothing
}
TRAININGS = st.lists(
    st.tuples(
        st.fixed_dictionaries(TRAINING),
        st.sampled_from(["base", "base and new", "new", "all"]),  # of which results are there
    ),
    min_size=1,
    max_size=14,
)


def written(root: Path, drawn) -> list[dict]:
    """Write results into folders of any name; return what was written, in the order of time."""
    facts = []
    for number, (training, halves) in enumerate(drawn):
        identity = "-".join(str(training[key]) for key in ("method", "n", "seed", "data"))
        for half in halves.split(" and "):
            tests = half == "new"
            fact = {
                **training,
                "half": half,
                "accuracy": 50.0 + number + 20 * tests,
                "time": f"2026-01-01T00:00:{len(facts):02}+00:00",
                "identity": f"test of {identity}" if tests else f"{half} {identity}",
                "tested": f"base {identity}" if tests else None,
            }
            facts.append(fact)
            write(root / f"copy {number}" / half / f"seed{training['seed']}", fact)
    return facts


def write(folder: Path, fact: dict) -> None:
    trained_on = {"dataset": "Set", "shots": 16, "seed": fact["seed"], "classnames": ["a", "b"]}
    trained_on |= {"subsample_classes": "base", "source_domains": []}
    record = {
        "schema": 2,
        "trainer": fact["method"],
        "backbone": "tiny",
        "dataset": "Set",
        "seed": fact["seed"],
        "shots": 16,
        "protocol": fact["label"],
        "config_name": "cfg",
        "subsample_classes": fact["half"],
        "metrics": {"accuracy": fact["accuracy"], "ece": 1.0},
        "time": fact["time"],
        "identity": fact["identity"],
        "trained_identity": fact["tested"],
        "trained_on": trained_on if fact["tested"] else None,
        "config": {
            "TRAINER": {fact["method"]: {"N": fact["n"]}},
            "DATALOADER": {"NUM_WORKERS": fact["workers"]},
        },
    }
    Result.of_record(record).write(folder)
    Predictions({"uncertainty": np.linspace(0, 1, 3)}).write(folder)


def expected(facts: list[dict]) -> dict[str, tuple[int, float, float]]:
    """The oracle: seeds, mean base and mean new accuracy of each row of the base-to-novel table."""
    rows = {}
    for method, n in itertools.product(["CDC", "CoOp"], [1, 2]):
        own = [f for f in facts if f["method"] == method and f["half"] != "all"]
        few_shot = [f for f in facts if f["method"] == method and f["half"] == "all"]
        pairs = []
        for seed in (1, 2, 3):
            of_seed = [f for f in own if f["n"] == n and f["seed"] == seed]
            found = [
                (base["accuracy"], new["accuracy"])
                for new in sorted(of_seed, key=lambda f: f["time"])
                for base in sorted(of_seed, key=lambda f: f["time"])
                if new["half"] == "new" and base["half"] == "base"
                if new["tested"] == base["identity"]
            ]
            pairs += found[-1:]  # the newest test, and the newest training of its model
        if pairs:
            # a method that two settings separate in one table has its long name in every table
            several = any(len({f["n"] for f in table}) > 1 for table in (own, few_shot))
            name = f"{method} (N={n})" if several else method
            rows[name] = (len(pairs), *np.mean(pairs, axis=0))
    return rows


@settings(max_examples=30)
@given(TRAININGS)
def test_each_seed_counts_once_and_a_test_is_paired_with_the_training_of_its_model(drawn):
    with tempfile.TemporaryDirectory() as root:
        facts = written(Path(root), drawn)
        tables = dict(result_tables(scores(load_runs(Path(root)))))
        table = tables.get("Base-to-novel: Set, 16 shots")
        rows = expected(facts)
        if not rows:
            assert table is None
            return
        found = table.set_index("method")
        assert set(found.index) == set(rows)
        for name, (seeds, base, new) in rows.items():
            assert found.loc[name, "seeds"] == seeds
            assert found.loc[name, ["base", "new"]].tolist() == pytest.approx([base, new])
