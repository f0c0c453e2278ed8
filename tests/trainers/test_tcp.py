"""TCP: its tokens against the formula, its texts against the published ones, its settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import weights
from golden.cases import build as golden_build
from scipy.special import expit
from torch.nn import functional as F

from causalclip.clip.interface import tokenize
from causalclip.trainers.tcp import TCP


@pytest.fixture(scope="module")
def trainer(clip_files) -> TCP:
    """A golden case: four blocks, the classes' tokens enter the third."""
    return golden_build("tcp", "tiny/random", clip_files)


def test_the_tokens_of_a_class_are_the_nets_reading_of_its_frozen_text(trainer):
    with torch.no_grad():
        texts = [f"a photo of a {name}, a type of pet." for name in weights.SPOKEN]
        known = F.normalize(trainer.clip.encode_text(tokenize(texts)), dim=-1).numpy()
        learned = {name: p.detach().numpy() for name, p in trainer.model.named_parameters()}
        first, skipped, tokens = trainer.model().text
    w1, b1, w2, b2 = (
        learned[f"meta_net.linear{i}.{kind}"] for i in (1, 2) for kind in ("weight", "bias")
    )
    hidden = known @ w1.T + b1
    expected = (hidden * expit(1.702 * hidden)) @ w2.T + b2
    np.testing.assert_allclose(tokens.numpy().reshape(5, -1), expected, atol=1e-5)
    assert torch.equal(first, trainer.model.get_parameter("ctx")) and skipped is None
    assert len(w1) == known.shape[1] // 4


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ("OxfordPets", "X X X X zebra, a type of pet."),
        ("DescribableTextures", "X X X X zebra texture."),
        ("StanfordCars", "X X X X zebra, a type of car"),
        ("UCF101", "X X X X person doing zebra."),
        ("EuroSAT", "X X X X zebra."),
    ],
)
def test_the_texts_are_the_published_ones(trainer, monkeypatch, dataset, text):
    monkeypatch.setattr(trainer, "cfg", trainer.cfg.clone())
    trainer.cfg.DATASET.NAME = dataset
    texts = trainer.texts(weights.CLASSNAMES)
    assert torch.equal(texts.tokens[3], tokenize([text])[0])
    assert texts.positions.tolist() == [[1, 2, 3, 4]] * 5


def test_other_class_names_get_tokens_of_their_own(trainer):
    with torch.no_grad():
        own = trainer.evaluation_text()
        turned = trainer.learned_text(weights.CLASSNAMES[::-1])
    torch.testing.assert_close(turned.flip(0), own, rtol=1e-5, atol=1e-5)


def test_without_its_weight_the_loss_is_the_cross_entropy(trainer, monkeypatch):
    images, labels = weights.images(0), weights.labels(0)
    weighed, logits = trainer.loss(images, labels)
    monkeypatch.setitem(trainer.settings, "W", 0.0)
    torch.testing.assert_close(trainer.loss(images, labels)[0], F.cross_entropy(logits, labels))
    assert weighed > trainer.loss(images, labels)[0]


@pytest.mark.parametrize(("optimizer", "epsilon"), [("adam", 1e-3), ("sgd", None)])
def test_adam_has_the_published_epsilon(make_trainer, tmp_path, optimizer, epsilon):
    trainer = make_trainer("TCP", tmp_path, "OPTIM.NAME", optimizer)
    assert [group.get("eps") for group in trainer.optim.param_groups] == [epsilon]
