"""Evaluations of methods that leave the image tower alone: each test image is encoded once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

NO_VISUAL_PROMPTS = ["TRAINER.IVLP.PROMPT_DEPTH_VISION", 0, "TRAINER.IVLP.N_CTX_VISION", 0]
UNFITTED = [
    ("ZeroshotCLIP", []),
    ("ZeroshotCLIP2", []),
    ("CoOp", []),
    ("KgCoOp", []),
    ("ProGrad", []),
    ("TCP", []),
    ("CoCoOp", []),
    ("CLIP_Adapter", []),
    ("CIPT", []),
    ("IVLP", NO_VISUAL_PROMPTS),
    ("CDC", ["TRAINER.CDC.VISION", "none"]),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(("name", "options"), [*UNFITTED, ("CDC", []), ("MaPLe", []), ("VPT", [])])
def test_a_second_method_or_seed_encodes_no_test_image_and_answers_as_if_it_did(
    name, options, make_trainer, tmp_path, encoded
):
    first = make_trainer("ZeroshotCLIP", tmp_path / "first")
    first.test()
    n_images = len(first.dm.dataset.test)
    assert encoded == [n_images]
    trainer = make_trainer(name, tmp_path, *options, "SEED", 2)
    trainer.test()
    if (name, options) in UNFITTED:
        assert encoded == [n_images]
    found = np.load(tmp_path / "predictions.npz")
    trainer.set_model_mode("eval")
    with torch.no_grad():
        batches = [trainer.parse_batch_test(batch)[0] for batch in trainer.test_loader]
        expected = [trainer.predict(images).main for images in batches]
    for key in ("probabilities", "uncertainty"):
        computed = torch.cat([getattr(reading, key) for reading in expected])
        np.testing.assert_allclose(found[key], computed, atol=1e-6, rtol=1e-6)


def test_a_fit_on_features_encodes_its_training_images_alone(make_trainer, tmp_path, encoded):
    make_trainer("CoOp", tmp_path / "first").test()
    before = encoded[0]
    probe = make_trainer("LinearProbe", tmp_path / "second", "TRAINER.LINEARPROBE.C", 1.0)
    probe.train()
    assert encoded[0] - before == len(probe.dm.dataset.train_x)


def test_validation_images_are_encoded_once_for_all_epochs(make_trainer, tmp_path, encoded):
    trainer = make_trainer("CoOp", tmp_path)
    for _ in range(3):
        trainer.test(split="val")
    assert encoded == [len(trainer.dm.dataset.val)]


def test_without_a_cache_every_evaluation_encodes(make_trainer, tmp_path, encoded, cache):
    trainer = make_trainer("CoOp", tmp_path, "FEATURE_CACHE", False)
    for _ in range(2):
        trainer.test()
    assert encoded == [2 * len(trainer.dm.dataset.test)]
    assert not cache.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["TRAINER.ZEROSHOTCLIP.PREC", "bf16"],
        ["TRAINER.ZEROSHOTCLIP.PREC", "amp"],
        ["INPUT.INTERPOLATION", "bilinear"],
        ["INPUT.TRANSFORMS", []],
    ],
)
def test_features_of_another_precision_or_preprocessing_are_others(
    options, make_trainer, tmp_path, encoded
):
    make_trainer("CoOp", tmp_path / "first").test()
    before = encoded[0]
    make_trainer("ZeroshotCLIP", tmp_path / "second", *options).test()
    assert encoded[0] == 2 * before


def test_a_method_with_prompts_in_the_image_tower_keeps_no_features(make_trainer, tmp_path, cache):
    make_trainer("MaPLe", tmp_path).test()
    assert not cache.exists()
