"""Results of earlier versions are read, and give the tables that the version printed of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from causalclip.report import summarize
from causalclip.report.predictions import Predictions
from causalclip.report.results import SCHEMA, Result, training_facts

LEGACY = Path(__file__).parents[1] / "legacy" / "report"
RESULTS = sorted(LEGACY.rglob("results.json"))
FOLDERS = {"train_base": "base2new", "test_new": "base2new", "causal_shapes": "lodo"}


@pytest.mark.parametrize(
    ("options", "printed"),
    [([], "tables.txt"), (["--protocol", "lodo", "--heldout"], "tables_heldout.txt")],
)
def test_the_tables_of_87e1c13s_results_are_those_it_printed(options, printed, monkeypatch, capsys):
    monkeypatch.chdir(LEGACY)
    assert summarize.main(["output", *options]) == 0
    assert capsys.readouterr().out == Path(printed).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: str(path.relative_to(LEGACY).parent))
def test_a_result_of_schema_1_is_read_with_the_protocol_of_its_folder(path):
    result = Result.read(path)
    assert result.schema == SCHEMA
    (protocol,) = {name for folder, name in FOLDERS.items() if folder in path.parts}
    assert result.protocol == protocol
    assert result.trainer in path.parts
    assert result.config["TRAINER"]["NAME"] == result.trainer


def test_the_facts_of_a_training_of_schema_1_are_those_its_evaluation_recorded():
    place = Path("handwritten_digits", "shots_16", "CDC", "tiny_m4", "seed1")
    facts = training_facts(LEGACY / "output/base2new/train_base" / place)
    tested = Result.read(LEGACY / "output/base2new/test_new" / place / "results.json")
    assert facts == tested.trained_on


def test_predictions_of_87e1c13_give_the_accuracy_of_the_result_beside_them():
    for path in LEGACY.rglob("predictions.npz"):
        result = Result.read(path.with_name("results.json"))
        predictions = Predictions.read(path)
        assert predictions.readings() == list(result.variants)
        for reading, metrics in {"": result.metrics, **result.variants}.items():
            right = predictions.probabilities(reading).argmax(1) == predictions.arrays["label"]
            assert metrics["accuracy"] == pytest.approx(100 * np.mean(right))
