"""Trainers on the bundled digits; what holds of all of them is in tests/checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Generic

import dassl
import numpy as np
import pytest
import torch
from dassl.engine import TRAINER_REGISTRY

from causalclip.engine.checkpoints import check_identity

CONFIGS = Path(__file__).parents[2] / "configs" / "trainers"
METHODS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())


def test_every_configured_method_is_registered(make_cfg):
    assert set(METHODS) <= set(TRAINER_REGISTRY.registered_names())


def test_a_method_is_at_most_five_classes_deep_beside_methods_that_it_varies(make_cfg):
    names = TRAINER_REGISTRY.registered_names()
    for name in names:
        kind = TRAINER_REGISTRY.get(name)
        if kind.__module__.startswith("causalclip."):
            bases = [base for base in kind.__mro__ if base not in (object, Generic)]
            varied = [base for base in bases[1:] if base.__name__ in names]
            assert len(bases) - len(varied) <= 5, bases


def test_a_run_says_its_shots_and_its_toolkit(trained):
    _, folder = trained("CoOp")
    record = json.loads((folder / "results.json").read_text())
    assert (record["trainer"], record["seed"], record["shots"]) == ("CoOp", 1, 2)
    assert record["classnames"] == ["zero", "one", "two", "three", "four"]
    assert record["versions"]["dassl"] == dassl.__version__


def test_a_result_on_new_classes_says_on_which_the_model_was_trained(
    trained, make_trainer, tmp_path
):
    _, folder = trained("CoOp")
    other = make_trainer("CoOp", tmp_path, "DATASET.SUBSAMPLE_CLASSES", "new")
    other.load_model(str(folder))
    other.test()
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["classnames"] == ["five", "six", "seven", "eight", "nine"]
    assert record["trained_on"]["classnames"][0] == "zero"
    assert record["training"] is None


def test_cdc_tells_per_template_probabilities_conflict_and_five_readings(trained):
    _, folder = trained("CDC")
    predictions = np.load(folder / "predictions.npz")
    n = len(predictions["label"])
    assert predictions["template_probabilities"].shape == (n, 4, 5)
    assert predictions["template_uncertainty"].shape == (n, 4)
    assert ((predictions["conflict"] >= 0) & (predictions["conflict"] <= 1)).all()
    record = json.loads((folder / "results.json").read_text())
    readings = {"dempster", "discounted", "averaging", "probabilities", "logits"}
    assert set(record["variants"]) == readings
    accuracies = {record["variants"][name]["accuracy"] for name in ("dempster", "discounted")}
    assert accuracies == {record["metrics"]["accuracy"]}  # a discount changes no prediction
    assert 0.25 <= record["details"]["discount"] <= 1


def test_each_variant_has_parts_of_its_own(trained, make_trainer, tmp_path):
    _, folder = trained("CDC")
    other = make_trainer("CDC", tmp_path, "DATASET.SUBSAMPLE_CLASSES", "all")
    other.load_model(str(folder))
    other.test()
    record = json.loads((tmp_path / "results.json").read_text())
    predictions = np.load(tmp_path / "predictions.npz")
    known = predictions["label"] < 5
    for name in ("dempster", "averaging"):
        right = predictions[f"{name}/probabilities"].argmax(1) == predictions["label"]
        for part, rows in (("base", known), ("open", ~known)):
            found = record["variant_parts"][name][part]["accuracy"]
            assert found == pytest.approx(100 * right[rows].mean())


def test_cdc_gives_each_template_its_own_view(make_trainer, tmp_path):
    trainer = make_trainer("CDC", tmp_path)
    images, labels = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    assert images.shape == (len(labels), 4, 3, 32, 32)
    assert not torch.equal(images[:, 0], images[:, 1])


DEEP = "at most 2, the depth of the text tower, got 3"
DEEP_IMAGE = "at most 2, the depth of the image tower, got 3"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("MaPLe", ["PROMPT_DEPTH", 3], DEEP),
        ("TCP", ["PROMPT_DEPTH", 3], DEEP),
        ("VPT", ["PROMPT_DEPTH_VISION", 3], DEEP_IMAGE),
        ("PromptSRC", ["PROMPT_DEPTH_VISION", 3], DEEP_IMAGE),
        ("MMA", ["ADAPTER_START", 1, "ADAPTER_END", 3], DEEP),
        ("MMRL", ["REP_LAYERS", [2, 3]], DEEP),
        ("MMRL", ["REP_LAYERS", [2, 1]], r"TRAINER.MMRL.REP_LAYERS must rise, got \[2, 1\]"),
        ("MMA", ["ADAPTER_START", 2, "ADAPTER_END", 1], "ADAPTER_END must be at least 2, got 1"),
        (
            "CLIP_ICM",
            ["HEAD", "linear_probe", "PROBE", False],
            "TRAINER.CLIP_ICM.HEAD linear_probe needs TRAINER.CLIP_ICM.PROBE True, got False",
        ),
        ("CoOp", ["INPUT.SIZE", (224, 224)], r"INPUT.SIZE must be \(32, 32\) for .*, got"),
        ("CoOp", ["MODEL.BACKBONE.NAME", "ViT-B/61"], "ViT-B/16"),
    ],
)
def test_a_wrong_setting_is_refused_before_training(name, options, message, make_trainer, tmp_path):
    node = TRAINER_REGISTRY.get(name).config_node
    full = [o if i % 2 or "." in o else f"TRAINER.{node}.{o}" for i, o in enumerate(options)]
    with pytest.raises(ValueError, match=message):
        make_trainer(name, tmp_path, *full)


def test_a_checkpoint_of_another_method_is_refused(trained, make_trainer, tmp_path):
    _, folder = trained("CDC")  # it registers its prompts under the same name as CoOp
    other = make_trainer("CoOp", tmp_path)
    with pytest.raises(ValueError, match="a checkpoint of CDC, this run is CoOp"):
        other.load_model(str(folder))


def test_a_checkpoint_that_does_not_say_its_weights_is_compared_by_the_backbones_name():
    ours = {"trainer": "CoOp", "backbone": "ViT-B/16", "weights": "0a", "classnames": ["ant"]}
    theirs = {key: value for key, value in ours.items() if key != "weights"}
    check_identity({"identity": theirs}, ours, Path("file"))
    with pytest.raises(ValueError, match="file: learned on the backbone RN50, this run has ViT"):
        check_identity({"identity": theirs | {"backbone": "RN50"}}, ours, Path("file"))


def test_a_finished_run_is_evaluated_and_not_trained_again(make_trainer, tmp_path, capsys):
    first = make_trainer("CoOp", tmp_path)
    first.train()
    again = make_trainer("CoOp", tmp_path)
    again.train()
    assert again.start_epoch == 1
    assert again.checkpointer.training_cost == first.checkpointer.training_cost  # stays known
    assert "Resume prompt_learner from" in capsys.readouterr().out
    assert torch.equal(again.model.ctx, first.model.ctx)


def test_evaluating_without_a_model_folder_is_refused(make_trainer, tmp_path):
    with pytest.raises(ValueError, match="give --model-dir"):
        make_trainer("CoOp", tmp_path).load_model("")


def test_a_missing_epoch_lists_what_is_there(trained, make_trainer, tmp_path):
    _, folder = trained("CoOp")
    with pytest.raises(FileNotFoundError, match=r"model.pth.tar-7.*holds: \['model.pth.tar-1'\]"):
        make_trainer("CoOp", tmp_path).load_model(str(folder), epoch=7)
