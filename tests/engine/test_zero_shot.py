"""Zero-shot accuracy of a trainer's CLIP, measured on training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from causalclip.engine.draws import generators_kept
from causalclip.engine.evaluation import measure_zero_shot


@pytest.mark.parametrize("method", ["CoOp", "MaPLe", "LinearProbe"])
def test_it_is_the_accuracy_of_zeroshot_clip_on_the_training_images(method, make_trainer, tmp_path):
    options = ["MODEL.BACKBONE.NAME", "tiny", "DATASET.NUM_SHOTS", 4]
    reference = make_trainer("ZeroshotCLIP", tmp_path / "zero", *options)
    items = reference.dm.dataset.train_x
    features, labels = reference.encoder.labelled(items)
    predicted = reference.predict_features(features).main.probabilities.argmax(-1)
    expected = 100 * (predicted == labels).double().mean().item()
    trainer = make_trainer(method, tmp_path / method, *options)
    with generators_kept():
        before = torch.get_rng_state()
        measured = measure_zero_shot(trainer)
        assert torch.equal(before, torch.get_rng_state())
    assert measured.accuracy == pytest.approx(expected, abs=0.01)
    assert (measured.images, measured.classes) == (20, 5)
    assert not measured.warning


def test_many_images_are_sampled_evenly(make_trainer, all_digits, tmp_path, monkeypatch):
    options = ["DATASET.NUM_SHOTS", -1, "DATASET.ROOT", str(all_digits)]
    trainer = make_trainer("ZeroshotCLIP", tmp_path, *options)
    seen = []
    encoder = type(trainer.encoder)
    monkeypatch.setattr(
        encoder, "labelled", lambda self, items, desc: seen.extend(items) or _random(len(items))
    )
    assert measure_zero_shot(trainer).images == len(seen) == 128
    counts = np.bincount([item.label for item in seen])
    assert len(counts) == 5 and counts.min() >= 15


def test_a_set_that_is_tested_alone_has_none(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer("ZeroshotCLIP", tmp_path)
    monkeypatch.setattr(trainer.dm.dataset, "_test", trainer.dm.dataset.train_x)
    assert measure_zero_shot(trainer) is None


def _random(count: int):
    return torch.randn(count, 128), torch.zeros(count, dtype=torch.long)
