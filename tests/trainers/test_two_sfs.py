"""2SFS against the published code, and its classifier on other classes.

golden/two_sfs.npz: FarinaMatteo/rethinking_fewshot_vlms @64ac143 (run_twostage, peft ln, six steps,
fraction 0.5, AdamW, rate 1e-3, no autocast) on golden/weights.py's CLIP. Losses of all steps,
gradients of the first, logits at the end: of the trained classes, and of one of them among others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden import weights
from golden.cases import assert_close, take_step, without_data

from causalclip.clip.interface import tokenize
from causalclip.clip.low_rank import merged_state
from causalclip.clip.openai_clip import build_model
from causalclip.trainers.two_sfs import TwoSFS

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "two_sfs.npz")
IMAGES = weights.images(0)
OTHERS = ["violin", "zebra", "old church"]
STEPS = 6


@pytest.fixture
def build(clip_files):
    """A function that builds 2SFS on the golden CLIP."""

    def build(**settings):
        optim = {"NAME": "adamw", "LR": 1e-3, "WEIGHT_DECAY": 0.01, "MAX_EPOCH": 1}
        settings = {"FRACTION": 0.5, **settings}
        return without_data(TwoSFS, clip_files["small"], optim=optim, **settings)

    return build


def train(trainer, steps: int = STEPS) -> list[float]:
    """Take some steps of STEPS; their losses."""
    trainer.update_lr = lambda: None  # Dassl's schedule of epochs
    losses = [take_step(trainer, step, num_batches=STEPS) for step in range(steps)]
    trainer.set_model_mode("eval")
    return losses


@torch.no_grad()
def logits_of(trainer, names=None) -> torch.Tensor:
    text = trainer.evaluation_text() if names is None else trainer.learned_text(names)
    return trainer.logits(IMAGES, text)


def test_the_first_gradients_are_the_published_ones(build):
    trainer = build()
    loss, _ = trainer.loss(IMAGES, weights.labels(0))
    assert_close(loss, GOLDEN["losses"][0], 1e-5, "loss")
    loss.backward()
    names = list(trainer.model.start)
    assert {f"gradient/{name}" for name in names} == {k for k in GOLDEN if k.startswith("grad")}
    for name, own in zip(names, trainer.model.norms, strict=True):
        assert_close(own.grad, GOLDEN[f"gradient/{name}"], 1e-5, name)
    assert trainer.model.classifier.grad is None


def test_both_stages_end_in_the_published_logits(build):
    trainer = build()
    start = logits_of(trainer)
    assert_close(train(trainer), GOLDEN["losses"], 1e-5, "losses")
    assert_close(logits_of(trainer), GOLDEN["logits"], 1e-5, "logits")
    assert_close(logits_of(trainer, OTHERS), GOLDEN["logits_other"], 1e-5, "other classes")
    assert not torch.allclose(start, logits_of(trainer), atol=1e-2)


def test_each_stage_leaves_the_weights_of_the_other_as_they_are(build):
    trainer = build()
    train(trainer, 3)
    norms = [own.clone() for own in trainer.model.norms]
    assert not trainer.model.classifier.any()
    train(trainer)
    second = build(FRACTION=0.0)  # a classifier alone
    train(second)
    starts = zip(second.model.norms, second.model.start.values(), strict=True)
    assert all(torch.equal(own, start) for own, start in starts)
    assert second.model.classifier.any()
    assert any(not torch.equal(a, b) for a, b in zip(norms, second.model.norms, strict=True))


def test_a_classifier_of_other_classes_is_loaded_with_its_own_rows(build):
    trainer = build()
    train(trainer)
    state = trainer.model.state_dict()
    other = build()
    other.classnames = OTHERS
    other.model.classifier.data = other.model.classifier.data[:3]
    other.model.load_state_dict(state)
    assert torch.equal(other.model.classifier, trainer.model.classifier)
    other.checkpointer.trained_on = {"classnames": weights.CLASSNAMES}
    other.set_model_mode("eval")
    assert_close(logits_of(other), GOLDEN["logits_other"], 1e-5, "logits")
    other.checkpointer.trained_on, other.checkpointer.loaded = None, True
    with pytest.raises(ValueError, match="TwoSFS needs the results.json of the training"):
        other.evaluation_text()


def test_the_merged_clip_is_a_plain_one_with_the_same_features(build):
    trainer = build()
    train(trainer)
    texts = tokenize([f"a photo of a {name}, a type of pet." for name in weights.SPOKEN])
    with torch.no_grad():
        prompts = trainer.model()
        plain = build_model(merged_state(trainer.clip, prompts)).float().eval()
        before = trainer.clip.encode_image(IMAGES)
        pairs = [
            (trainer.image_features(IMAGES, prompts), plain.encode_image(IMAGES)),
            (trainer.text_features(prompts), plain.encode_text(texts)),
        ]
    for ours, merged in pairs:
        torch.testing.assert_close(ours, merged, rtol=0, atol=1e-2)  # build_model rounds to fp16
    assert not torch.allclose(before, pairs[0][1], atol=1e-2)
