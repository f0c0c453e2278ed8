"""CIPT against the published code.

golden/cipt.npz: ckghostwj/CIPT (cipt/model.py and cipt/losses.py; 16 context words, K = 4, beta 2,
gamma 5, Adam at 2.5e-3) on golden/weights.py's CLIP. The start is weights.learnable, for adapters a
quarter of it plus the identity, for the LayerNorm's weight plus 1. torch.manual_seed(step) precedes
each step, which draws the templates. Of the attention only the value's rows are kept: those of
queries and keys have gradient 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden import weights
from golden.cases import assert_close, logits_of, take_step, without_data

from causalclip.trainers.cipt import CIPT, distance_from_uniform

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "cipt.npz")
PUBLISHED = {
    "ctx": "prompt_learner.ctx",
    "causal": "causal_adapter.proj",
    "spurious": "spurious_adapter.proj",
    "value": "diversity_augmentation.attn.in_proj",
    "out": "diversity_augmentation.attn.out_proj",
    "norm": "diversity_augmentation.norm",
}


def published_name(name: str) -> str:
    module, _, kind = name.partition(".")
    separator = "_" if module == "value" else "."
    return PUBLISHED[module] + (separator + kind if kind else "")


@pytest.fixture
def build(clip_files):
    """A function that builds CIPT on the golden CLIP, as it starts by itself."""

    def build(**settings):
        adam = {"NAME": "adam", "LR": 2.5e-3, "WEIGHT_DECAY": 0.0}
        return without_data(CIPT, clip_files["small"], optim=adam, **settings)

    return build


@pytest.fixture
def trainer(build):
    """CIPT at the golden start."""
    trainer = build()
    for name, parameter in trainer.model.named_parameters():
        rows = 3 * len(parameter) if name.startswith("value") else len(parameter)
        start = weights.learnable(published_name(name), (rows, *parameter.shape[1:]))
        start = start[-len(parameter) :]
        if name in ("causal.weight", "spurious.weight"):
            start = start / 4 + torch.eye(rows)
        parameter.data.copy_(start + 1 if name == "norm.weight" else start)
    return trainer


def test_the_context_begins_with_the_words_and_goes_on_at_random(build):
    first, again = build().model.ctx, build().model.ctx
    assert_close(first[:4], GOLDEN["words"], 0, "words")
    assert first.shape == (16, 128) and not torch.equal(first[4:], again[4:])
    assert abs(first[4:].std().item() - 0.02) < 2e-3


def test_logits_loss_and_gradients_equal_the_published_ones(trainer):
    assert_close(logits_of(trainer), GOLDEN["logits"], 1e-5, "logits")
    torch.manual_seed(0)
    loss, _ = trainer.loss(weights.images(0), weights.labels(0))
    assert_close(loss, GOLDEN["losses"][0], 1e-5, "loss")
    loss.backward()
    for name, parameter in trainer.model.named_parameters():
        assert_close(parameter.grad, GOLDEN[f"gradient/{published_name(name)}"], 1e-5, name)


def test_three_steps_end_in_the_published_logits(trainer):
    losses = []
    for step in range(3):
        torch.manual_seed(step)
        losses.append(take_step(trainer, step))
    assert_close(losses, GOLDEN["losses"], 1e-5, "losses")
    # Adam divides each gradient by its own size: rounding shows where it is nearly 0.
    assert_close(logits_of(trainer), GOLDEN["logits_after"], 1e-4, "logits")


def test_a_step_draws_its_templates_anew_and_a_test_takes_the_first(trainer):
    step = (weights.images(0), weights.labels(0))
    losses = {trainer.loss(*step)[0].item() for _ in range(3)}
    assert len(losses) == 3
    assert torch.equal(logits_of(trainer), logits_of(trainer))
    torch.testing.assert_close(trainer.test_texts, trainer.training_texts[:4])


def test_the_distance_from_uniform_is_torchs_divergence():
    logits = torch.randn(6, 5, dtype=torch.float64)
    uniform = torch.distributions.Categorical(logits=torch.zeros_like(logits))
    own = torch.distributions.Categorical(logits=logits)
    expected = torch.distributions.kl_divergence(uniform, own).mean()
    torch.testing.assert_close(distance_from_uniform(logits), expected)


def test_words_that_do_not_fit_the_context_are_refused(build):
    says = "N_CTX must be at least 4, the tokens of CTX_INIT 'a photo of a', got 3"
    with pytest.raises(ValueError, match=says):
        build(N_CTX=3)
    assert build(N_CTX=4, CTX_INIT="").model.ctx.shape == (4, 128)
