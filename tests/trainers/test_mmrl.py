"""MMRL and MMRL++: features for classes, the loss written out, and settings of data sets."""

from __future__ import annotations

import pytest
import torch
from golden import weights
from golden.cases import assert_close, golden_file, logits_of
from golden.cases import build as golden_build
from torch.nn import functional as F

from causalclip.clip.interface import tokenize
from causalclip.runs.recipes import recipes_of
from causalclip.trainers.mmrl import MMRL

IMAGES, LABELS = weights.images(0), weights.labels(0)
CASE = "small/upper"
NAMES = list(weights.CLASSNAMES)


@pytest.fixture(scope="module")
def trainer(clip_files) -> MMRL:
    return golden_build("mmrl", CASE, clip_files)


@pytest.mark.parametrize("method", ["mmrl", "mmrlpp"])
def test_new_classes_are_read_by_the_class_feature_alone_as_published(
    method, clip_files, monkeypatch
):
    trainer, golden = golden_build(method, CASE, clip_files), golden_file(method)
    for inference, name in (("class", "logits_new"), ("both", "logits")):
        monkeypatch.setitem(trainer.settings, "INFERENCE", inference)
        assert_close(logits_of(trainer), golden[f"{CASE}/{name}"], 1e-5, name)


def trained_on(dataset: str, names: list[str]) -> dict:
    return {"dataset": dataset, "classnames": names}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, True),  # the run that trains
        ({"trained_on": trained_on("OxfordPets", NAMES), "loaded": True}, True),
        ({"trained_on": trained_on("OxfordPets", [*NAMES, "a"]), "loaded": True}, True),
        ({"trained_on": trained_on("OxfordPets", NAMES[:4]), "loaded": True}, False),
        ({"trained_on": trained_on("Food101", NAMES), "loaded": True}, False),
        ({"loaded": True}, False),  # a converted checkpoint does not say its classes
    ],
)
def test_tokens_read_what_they_were_trained_on(trainer, monkeypatch, facts, expected):
    for name, value in facts.items():
        monkeypatch.setattr(trainer.checkpointer, name, value)
    assert trainer.reads_both == expected


def test_tokens_do_not_read_a_left_out_domain(trainer, monkeypatch):
    monkeypatch.setattr(trainer, "cfg", trainer.cfg.clone())
    trainer.cfg.defrost()
    trainer.cfg.DATASET.SOURCE_DOMAINS = ["photo", "sketch"]
    for targets, expected in (["photo"], True), (["art"], False):
        trainer.cfg.DATASET.TARGET_DOMAINS = targets
        assert trainer.reads_both == expected


def test_the_loss_is_its_four_terms(trainer, monkeypatch):
    monkeypatch.setitem(trainer.settings, "REG_WEIGHT", 3.0)
    monkeypatch.setitem(trainer.settings, "ALPHA", 0.25)
    loss, scores = trainer.loss(IMAGES, LABELS)
    names = [name.replace("_", " ") for name in NAMES]
    tokens = tokenize([f"a photo of a {name}, a type of pet." for name in names])
    with torch.no_grad():
        prompts = trainer.model()
        features, of_tokens = trainer.both_features(IMAGES, prompts)
        text = trainer.text_features(prompts)
        of_class, special = (
            10 * F.normalize(z, dim=-1) @ F.normalize(text, dim=-1).T for z in (features, of_tokens)
        )
        expected = 0.25 * F.nll_loss(of_class.log_softmax(-1), LABELS)
        expected += 0.75 * F.nll_loss(special.log_softmax(-1), LABELS)
        frozen = trainer.clip.encode_image(IMAGES), trainer.clip.encode_text(tokens)
        for learned, kept in zip((features, text), frozen, strict=True):
            unit = F.normalize(learned, dim=-1) * F.normalize(kept, dim=-1)
            expected += 3 * (1 - unit.sum(-1).mean())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(scores, 0.25 * of_class + 0.75 * special)


def test_a_second_step_computes_no_text_below_the_tokens(clip_files):
    trainer, calls = golden_build("mmrl", CASE, clip_files), []
    first = trainer.settings.REP_LAYERS[0] - 1
    for block in (first - 1, first):
        mlp = trainer.clip.transformer.resblocks[block].mlp
        mlp.c_fc.register_forward_hook(lambda *_, block=block: calls.append(block))
    losses = [trainer.loss(IMAGES, LABELS)[0] for _ in range(2)]
    assert calls == [first - 1, first, first]
    assert losses[0] == losses[1]
    calls.clear()
    with torch.no_grad():  # an evaluation may have another precision
        trainer.text_features(trainer.model())
    assert calls == [first - 1, first]


def test_its_texts_learn_and_are_kept_for_an_evaluation(trainer):
    with torch.no_grad():
        text = trainer.evaluation_text()
        assert torch.equal(trainer.logits(IMAGES, text), trainer.logits(IMAGES))
        # other shapes of a matrix product may round otherwise
        torch.testing.assert_close(trainer.learned_text(NAMES[:2]), trainer.learned_text(NAMES)[:2])
        assert not torch.allclose(F.normalize(text, dim=-1), trainer.handcrafted, atol=1e-3)


def test_data_sets_have_the_published_weights():
    weight, settings_of = "TRAINER.MMRL.REG_WEIGHT", recipes_of("MMRL").extra_settings
    assert settings_of("fewshot", "stanford_cars", "16") == (weight, "7.0")
    wide = (weight, "0.01", "TRAINER.MMRL.REP_DIM", "2048")
    assert settings_of("base2new", "eurosat", "16") == wide
    for protocol, dataset in (("xd", "imagenet"), ("lodo", "pacs"), ("base2new", "pacs")):
        assert settings_of(protocol, dataset, "16") == ()
    mixed = ("TRAINER.MMRLPP.REG_WEIGHT", "0.01", "TRAINER.MMRLPP.BETA", "0.2")
    assert recipes_of("MMRLpp").extra_settings("base2new", "eurosat", "16") == mixed
    assert recipes_of("MMRLpp").extra_settings("xd", "imagenet", "16") == ()
    assert recipes_of("MaPLe").extra_settings("base2new", "eurosat", "16") == ()
