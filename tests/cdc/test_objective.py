"""causalclip/cdc/objective.py against TMC's loss written with loops, and against limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import digamma, gammaln
from torch.nn import functional as F

from causalclip.cdc.evidence import evidence_from_logits, fuse
from causalclip.cdc.losses import consistency_loss, diversity_loss
from causalclip.cdc.objective import Objective, annealing, fused_scores

B, M, K, E = 5, 3, 4, 8
LABELS = torch.tensor([0, 3, 1, 2, 2])


def sample(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def logits():
    return (2 * sample(B, M, K)).requires_grad_()


def loss_of(logits, *, epoch=1, **settings):
    return Objective(**settings).classification(
        logits, evidence_from_logits(logits), LABELS, epoch=epoch
    )


# -- TMC, equations (2) to (11), in loops over opinions and classes ------------------------------


def combined(one, other):
    """Evidence of two opinions by the reduced Dempster rule, from beliefs and uncertainties."""
    (b1, u1), (b2, u2) = ((e / (e.sum() + K), K / (e.sum() + K)) for e in (one, other))
    conflict = sum(b1[i] * b2[j] for i in range(K) for j in range(K) if i != j)
    belief = (b1 * b2 + b1 * u2 + b2 * u1) / (1 - conflict)
    return K * belief / (u1 * u2 / (1 - conflict))


def tmc_loss(evidence, label, kl_factor):
    """Of one image: the sum over its M opinions and the fused one."""
    fused = evidence[0]
    for other in evidence[1:]:
        fused = combined(fused, other)
    total = 0.0
    for e in (*evidence, fused):
        alpha = e + 1
        total += digamma(alpha.sum()) - digamma(alpha[label])
        kept = np.where(np.arange(K) == label, 1.0, alpha)
        spread = gammaln(kept.sum()) - gammaln(kept).sum() - gammaln(K)
        pull = ((kept - 1) * (digamma(kept) - digamma(kept.sum()))).sum()
        total += kl_factor * (spread + pull)
    return total


@pytest.mark.parametrize(("epoch", "epochs"), [(1, 50), (7, 50), (50, 50), (60, 50), (3, 0)])
def test_the_summed_trusted_loss_is_tmcs_with_its_annealed_kl(logits, epoch, epochs):
    factor = min(1, epoch / epochs) if epochs else 1
    evidence = logits.detach().exp().numpy()
    pairs = zip(evidence, LABELS.numpy(), strict=True)
    expected = np.mean([tmc_loss(e, label, factor) for e, label in pairs])
    found = loss_of(logits, reduction="sum", kl_weight=1.0, kl_epochs=epochs, epoch=epoch)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_the_kl_weight_grows_from_the_first_epoch_to_its_last():
    assert [annealing(epoch, 4) for epoch in range(1, 7)] == [0.25, 0.5, 0.75, 1, 1, 1]


# -- switches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["trusted", "cross_entropy"])
@pytest.mark.parametrize(("fused", "opinions"), [(True, M + 1), (False, M)])
def test_a_sum_takes_as_many_times_the_step_of_a_mean_as_there_are_opinions(
    logits, loss, fused, opinions
):
    mean, total = (
        torch.autograd.grad(loss_of(logits, loss=loss, fused=fused, reduction=how), logits)[0]
        for how in ("mean", "sum")
    )
    torch.testing.assert_close(total, opinions * mean, rtol=1e-12, atol=0)


def test_plain_cross_entropy_is_each_templates_own(logits):
    each = [F.cross_entropy(logits[:, m], LABELS) for m in range(M)]
    found = loss_of(logits, loss="cross_entropy", fused=False)
    torch.testing.assert_close(found, torch.stack(each).mean())


@pytest.mark.parametrize(
    ("fusion", "probabilities"),
    [
        ("logits", lambda logits: logits.mean(1).softmax(-1)),
        ("probabilities", lambda logits: logits.softmax(-1).mean(1)),
        ("averaging", lambda logits: F.normalize(logits.exp().mean(1) + 1, p=1, dim=-1)),
        ("dempster", lambda logits: F.normalize(fuse(logits.exp()) + 1, p=1, dim=-1)),
    ],
)
def test_plain_cross_entropy_scores_the_fused_probabilities_too(logits, fusion, probabilities):
    fused = F.nll_loss(probabilities(logits).log(), LABELS)
    alone = loss_of(logits, loss="cross_entropy", fused=False, reduction="sum")
    found = loss_of(logits, loss="cross_entropy", fusion=fusion, reduction="sum")
    torch.testing.assert_close(found, alone + fused)


@pytest.mark.parametrize("fusion", ["probabilities", "logits"])
def test_the_trusted_loss_of_a_fusion_without_evidence_is_refused(logits, fusion):
    with pytest.raises(ValueError, match=f"needs a fused opinion, and {fusion} gives none"):
        loss_of(logits, fusion=fusion)
    loss_of(logits, fusion=fusion, fused=False)


@pytest.mark.parametrize("fusion", ["discounted", "dempster"])
def test_training_fuses_by_dempsters_rule_before_the_discount_is_fitted(logits, fusion):
    evidence = logits.exp()
    assert torch.equal(fused_scores(logits, evidence, fusion), fuse(evidence))


# -- beside the classification -------------------------------------------------------------------


def regularisers(text, image, **weights):
    handcrafted, frozen = sample(K, E, seed=8), sample(B, M, E, seed=9)
    return Objective(**weights).regularisers(text, image, handcrafted=handcrafted, frozen=frozen)


def test_each_weight_brings_its_own_term():
    text, image = sample(M, K, E, seed=1), sample(B, M, E, seed=2)
    terms = {
        "beta": diversity_loss(text),
        "beta_image": diversity_loss(image.transpose(0, 1)),
        "gamma": consistency_loss(text, sample(K, E, seed=8)),
        "gamma_image": consistency_loss(image, sample(B, M, E, seed=9)),
    }
    assert regularisers(text, image) == 0
    for name, term in terms.items():
        assert regularisers(text, image, **{name: 2.0}).item() == pytest.approx(2 * term.item())
    total = regularisers(text, image, **dict.fromkeys(terms, 1.0))
    assert total.item() == pytest.approx(sum(term.item() for term in terms.values()))


def test_image_features_at_the_frozen_towers_are_where_their_consistency_is_least():
    frozen = sample(B, M, E, seed=3)
    for shift, at_rest in ((0.0, True), (0.1, False)):
        image = (frozen + shift * sample(B, M, E, seed=4)).requires_grad_()
        text, classes = sample(M, K, E), sample(K, E)
        loss = Objective(gamma_image=5.0).regularisers(
            text, image, handcrafted=classes, frozen=frozen
        )
        (gradient,) = torch.autograd.grad(loss, image)
        assert (gradient.abs().max().item() < 1e-12) == at_rest
        assert math.isclose(loss.item(), 0, abs_tol=1e-12) == at_rest
