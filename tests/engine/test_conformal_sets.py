"""Conformal sets of an evaluation: calibrated on its validation split, for every reading."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from causalclip.conformal import conformal_metrics
from causalclip.engine.evaluation import collect

ON = ["TEST.CONFORMAL", 0.2]


@pytest.mark.parametrize("name", ["ZeroshotCLIP", "CDC"])
def test_each_reading_has_the_coverage_of_its_own_sets(name, trained):
    trainer, folder = trained(name, *ON)
    record = json.loads((folder / "results.json").read_text())
    with torch.no_grad():
        known = collect(trainer, trainer.val_loader)
    calibrating = {"": known.prediction.main, **known.prediction.readings}
    assert set(calibrating) == {"", *record["variants"]}
    with np.load(folder / "predictions.npz") as arrays:
        for reading, own in calibrating.items():
            probabilities = arrays[f"{reading}/probabilities" if reading else "probabilities"]
            expected = conformal_metrics(
                (own.probabilities, known.labels),
                (probabilities, arrays["label"]),
                alpha=0.2,
                seed=1,
            )
            metrics = record["variants"][reading] if reading else record["metrics"]
            assert {key: metrics[key] for key in expected} == pytest.approx(expected)


def test_the_sets_change_no_other_number_and_no_draw(make_trainer, tmp_path):
    records, states = [], []
    for options in ([], ON):
        trainer = make_trainer("CoOp", tmp_path / str(len(records)), *options)
        trainer.train()
        states.append(torch.get_rng_state())
        path = tmp_path / str(len(records)) / "results.json"
        records.append(json.loads(path.read_text())["metrics"])
    plain, with_sets = records
    assert plain.items() < with_sets.items()
    assert torch.equal(*states)


def test_they_need_another_split_than_the_one_they_are_calibrated_on(make_trainer, tmp_path):
    with pytest.raises(
        ValueError, match=r"TEST.CONFORMAL calibrates .* needs TEST.SPLIT test, got"
    ):
        make_trainer("CoOp", tmp_path, *ON, "TEST.SPLIT", "val")
    with pytest.raises(ValueError, match=r"TEST.CONFORMAL must be a number in \[0, 1\)"):
        make_trainer("CoOp", tmp_path, "TEST.CONFORMAL", 1.0)
