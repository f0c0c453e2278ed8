"""ProGrad: its projection against a constrained minimum, its step against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import weights
from golden.cases import build as golden_build
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from causalclip.clip.interface import tokenize
from causalclip.trainers.prograd import ProGrad, projected

PETS = "a type of pet, a photo of a"


@pytest.fixture(scope="module")
def trainer(clip_files) -> ProGrad:
    """The golden case whose first step goes against zero-shot CLIP."""
    return golden_build("prograd", "tiny/words", clip_files)


def set_to(trainer: ProGrad, monkeypatch, **settings) -> None:
    """Other settings of a trainer that stands, for one test."""
    for key, value in settings.items():
        monkeypatch.setitem(trainer.settings, key, value)


def gradients(trainer: ProGrad, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The cross-entropy, its gradient, and that of T^2 KL(zero-shot || learned), by torch alone."""
    with torch.no_grad():
        texts = trainer.clip.encode_text(tokenize([f"{PETS} {name}." for name in weights.SPOKEN]))
        image = F.normalize(trainer.clip.encode_image(weights.images(0)), dim=-1)
        zero_shot = trainer.backbone.logit_scale * image @ F.normalize(texts, dim=-1).T
    logits = trainer.logits(weights.images(0))
    entropy = F.cross_entropy(logits, weights.labels(0))
    learned = (logits / temperature).log_softmax(-1)
    known = (zero_shot / temperature).softmax(-1)
    distance = temperature**2 * F.kl_div(learned, known, reduction="batchmean")
    ctx = trainer.model.get_parameter("ctx")
    (g,) = torch.autograd.grad(entropy, ctx, retain_graph=True)
    (b,) = torch.autograd.grad(distance, ctx)
    return entropy, g, b


def step_gradient(trainer: ProGrad) -> tuple[Tensor, Tensor]:
    """The loss of our trainer, and the gradient its backward leaves."""
    ctx = trainer.model.get_parameter("ctx")
    ctx.grad = None
    loss, _ = trainer.loss(weights.images(0), weights.labels(0))
    trainer.scaler.scale(loss).backward()
    assert ctx.grad is not None
    return loss, ctx.grad


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_projected_gradient_is_the_nearest_that_is_not_against_the_general_one(sign):
    random = np.random.default_rng(0)
    g, b = random.normal(size=(2, 3)), random.normal(size=(2, 3))
    b *= sign * np.sign((g * b).sum())
    found = minimize(
        lambda x: ((x - g.ravel()) ** 2).sum(),
        np.zeros(6),
        constraints={"type": "ineq", "fun": lambda x: x @ b.ravel()},
        options={"ftol": 1e-14},
    )
    ours = projected(torch.tensor(g), torch.tensor(b), 1.0)
    np.testing.assert_allclose(ours.numpy().ravel(), found.x, atol=1e-6)
    assert np.allclose(ours, g) == (sign > 0)


@pytest.mark.parametrize(("lam", "temperature"), [(1.0, 1.0), (0.8, 1.0), (1.0, 3.0)])
def test_a_step_takes_the_gradient_of_the_formula(trainer, monkeypatch, lam, temperature):
    set_to(trainer, monkeypatch, LAMBDA=lam, T=temperature)
    entropy, g, b = gradients(trainer, temperature)
    inner = (g * b).sum()
    assert inner < 0  # or this shows nothing
    loss, gradient = step_gradient(trainer)
    assert loss.item() == pytest.approx(entropy.item(), rel=1e-6)
    expected = g - lam * inner / (b * b).sum() * b
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=5e-6)
    assert not torch.allclose(gradient, g, rtol=1e-3)


def test_a_scaled_loss_has_the_scaled_gradient(trainer, monkeypatch):
    """As amp needs it: the projection sees the scaled gradient of the cross-entropy."""
    plain = step_gradient(trainer)[1].clone()
    monkeypatch.setattr(trainer, "scaler", torch.amp.GradScaler("cpu", init_scale=1024.0))
    scaled = step_gradient(trainer)[1]
    torch.testing.assert_close(scaled / 1024, plain, rtol=1e-5, atol=1e-7)


def test_the_context_is_zero_in_front_of_the_words_of_the_template(trainer):
    assert trainer.words() == PETS and trainer.padding() == 8  # eight words, nine tokens
    assert trainer.context().words == "X X X X X X X X a type of pet, a photo of a"


def test_only_the_words_in_front_of_the_class_name_are_learned(trainer, monkeypatch):
    set_to(trainer, monkeypatch, TEMPLATE="a scan of {}, a digit.")
    assert trainer.words() == "a scan of"
    set_to(trainer, monkeypatch, TEMPLATE="{} texture.")
    assert (trainer.context().n_ctx, trainer.context().words) == (16, "")
    set_to(trainer, monkeypatch, TEMPLATE="", CTX_INIT=False)
    assert trainer.context().words == ""


def test_a_context_shorter_than_its_words_is_refused(trainer, monkeypatch):
    set_to(trainer, monkeypatch, N_CTX=4)
    with pytest.raises(ValueError, match=r"PROGRAD.N_CTX must be at least 8, the words .* got 4"):
        trainer.context()
