"""CDC with templates of another method: with one template it equals that method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed

from causalclip import plugin
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.records.identity import run_settings
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.request import Request, settings_for

plugin.register_all()
BASES = [
    name
    for name in TRAINER_REGISTRY.registered_names()
    if issubclass(kind := TRAINER_REGISTRY.get(name), PromptTrainer)
    and kind.__module__.startswith("causalclip.")
    and not kind.has_members
    and kind.step is PromptTrainer.step  # a method of two stages is no base
]
SHORT = ["OPTIM.LR", 0.0035, "OPTIM.MAX_EPOCH", 3, "OPTIM.WARMUP_EPOCH", -1]
ALONE = ["N_TEMPLATES", 1, "LOSS", "base", "FUSED_LOSS", False, "FUSION", "logits"]
ALONE += ["VIEWS", ["as_configured"], "EVIDENCE_OFFSET", "image", "BETA", 0.0, "GAMMA", 0.0]


@pytest.fixture
def on_base(make_cfg):
    """Build CDC on a base, with the base's recipe and KEY VALUE pairs of CDC's own node."""

    def build(base, folder, *pairs, whole=SHORT):
        cfg = make_cfg(base, folder, *whole).clone()
        cfg.defrost()
        cfg.TRAINER.NAME = "CDC"
        for key, value in zip(["BASE", *pairs[::2]], [base, *pairs[1::2]], strict=True):
            cfg.TRAINER.CDC[key] = value
        cfg.freeze()
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)

    return build


def probabilities(folder):
    return Predictions.read(folder / PREDICTIONS_FILE).probabilities()


@pytest.mark.parametrize("base", BASES)
def test_one_template_of_a_base_is_that_base_to_the_digit(base, on_base, make_trainer, tmp_path):
    alone = make_trainer(base, tmp_path / "base", *SHORT)
    alone.train()
    one = on_base(base, tmp_path / "cdc", *ALONE)
    before = [p.detach().clone() for p in one.model.parameters()]
    one.train()
    moved = [not torch.equal(p, b) for p, b in zip(one.model.parameters(), before, strict=True)]
    assert any(moved)
    learned = one.model.templates[0].state_dict()
    for name, weight in alone.model.state_dict().items():
        torch.testing.assert_close(learned[name], weight, rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(*map(probabilities, (tmp_path / "base", tmp_path / "cdc")))


@pytest.mark.parametrize("base", ["CoOp", "PromptSRC", "MMRL", "MMA"])
def test_several_templates_of_a_base_train_and_name_new_classes(base, on_base, tmp_path):
    pairs = ["N_TEMPLATES", 2, "VIEWS", ["plain", "crop"]]
    on_base(base, tmp_path / "base", *pairs).train()
    new = on_base(base, tmp_path / "new", *pairs, whole=["DATASET.SUBSAMPLE_CLASSES", "new"])
    new.load_model(str(tmp_path / "base"))
    new.test()
    found = Predictions.read(tmp_path / "new" / PREDICTIONS_FILE)
    each = found.arrays["template_probabilities"]
    assert each.shape == (*found.probabilities().shape[:1], 2, 5)
    assert not np.allclose(each[:, 0], each[:, 1])
    assert (found.arrays["conflict"] > 0).all()


def test_the_losses_of_the_bases_are_summed(on_base, tmp_path):
    pairs = ["N_TEMPLATES", 2, *ALONE[2:]]
    trainer = on_base("PromptSRC", tmp_path, *pairs)
    images, labels = torch.randn(3, 2, 3, 32, 32), torch.tensor([0, 1, 2])
    each = [m.loss(images[:, i], labels)[0] for i, m in enumerate(trainer.members.models)]
    assert trainer.loss(images, labels)[0].item() == pytest.approx(sum(each).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("base", "pairs", "message"),
    [
        ("CoCoOp", [], "CDC.BETA and TRAINER.CDC.GAMMA must be 0 where the texts depend on"),
        ("LinearProbe", [], "CDC.BASE must be empty or one of .*MaPLe.*, got 'LinearProbe'"),
        ("MaPLe", ["LOSS", "base"], "CDC.FUSED_LOSS must be False where TRAINER.CDC.LOSS is base"),
    ],
)
def test_a_base_that_cannot_be_one_is_named(base, pairs, message, on_base, tmp_path):
    with pytest.raises(ValueError, match=message):
        on_base(base, tmp_path, *pairs).train()


def test_a_loss_of_no_base_and_a_base_of_one_class_are_named(make_trainer, tmp_path):
    with pytest.raises(ValueError, match="CDC.BASE must name a prompt method where"):
        make_trainer("CDC", tmp_path, "TRAINER.CDC.LOSS", "base")
    options = ["TRAINER.CDC.BASE", "CoOp", "TRAINER.COOP.CSC", True]
    with pytest.raises(ValueError, match="CDC.BASE CoOp must share its prompts among classes"):
        make_trainer("CDC", tmp_path, *options)


def test_the_settings_of_the_base_belong_to_the_run(make_cfg, tmp_path):
    cfg = make_cfg("CDC", tmp_path, "TRAINER.CDC.BASE", "MaPLe")
    assert "TRAINER.MAPLE.N_CTX" in run_settings(cfg, "CDC")
    assert "TRAINER.COOP.N_CTX" not in run_settings(cfg, "CDC")
    settings = ("TRAINER.CDC.BASE", "MaPLe", "TRAINER.MAPLE.N_CTX", "4", "TRAINER.COOP.N_CTX", "4")
    request = Request(PROTOCOLS["base2new"], methods=("CDC",), datasets=(), settings=settings)
    assert settings_for(request, "CDC") == settings[:4]
