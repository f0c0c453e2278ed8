"""CDC's losses against Monte Carlo, torch.distributions, TMC in loops, and limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import digamma, gammaln
from sklearn.metrics import matthews_corrcoef
from torch.nn import functional as F

from causalclip.cdc import losses
from causalclip.cdc.config import CDCConfig
from causalclip.cdc.evidence import evidence_from_logits, fuse
from causalclip.cdc.losses import (
    classification_loss,
    consistency_loss,
    dirichlet_kl,
    diversity_loss,
    pair_diversity,
    residual_directions,
    trusted_cross_entropy,
)

B, M, K, E = 5, 3, 4, 8
LABELS = torch.tensor([0, 3, 1, 2, 2])


def sample(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_loss_and_its_gradient_are_finite_at_the_largest_evidence():
    exponents = torch.tensor([[80.0, -80.0, 0.0], [0.0, 80.0, 80.0]], requires_grad=True)
    loss = trusted_cross_entropy(exponents.exp(), torch.tensor([1, 0]))
    loss.backward()
    assert loss.isfinite() and exponents.grad.isfinite().all()
    # The evidence that contradicts the label pulls with full strength.
    torch.testing.assert_close(exponents.grad[0, 0], torch.tensor(0.5))


def test_the_kl_term_keeps_its_digits_on_large_single_precision_evidence():
    evidence, labels = torch.tensor([[0.0, 1e8, 2e8]]), torch.tensor([0])
    expected = dirichlet_kl(evidence.double(), labels)
    assert dirichlet_kl(evidence, labels).dtype == torch.float32
    assert dirichlet_kl(evidence, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_diversity_is_the_mean_cosine_over_classes_and_pairs_of_templates():
    features = sample(4, 3, 8)
    cosines = [
        F.cosine_similarity(features[m, k], features[n, k], dim=0)
        for k in range(3)
        for m in range(4)
        for n in range(4)
        if m != n
    ]
    torch.testing.assert_close(diversity_loss(features), torch.stack(cosines).mean())


def test_consistency_is_the_mean_distance_to_the_frozen_template():
    features, reference = sample(4, 3, 8), sample(3, 8, seed=1)
    distances = [
        1 - features[m, k] @ reference[k] / features[m, k].norm() / reference[k].norm()
        for m in range(4)
        for k in range(3)
    ]
    torch.testing.assert_close(consistency_loss(features, reference), torch.stack(distances).mean())
    same = consistency_loss(3 * reference.expand(4, 3, 8), reference)
    assert same.item() == pytest.approx(0, abs=1e-12)


def test_all_losses_pass_gradcheck():
    evidence, labels = sample(3, 4).exp().requires_grad_(), torch.tensor([0, 3, 1])
    features, reference = sample(3, 2, 5).requires_grad_(), sample(2, 5, seed=1)
    check = torch.autograd.gradcheck
    assert check(lambda e: trusted_cross_entropy(e, labels), evidence)
    assert check(lambda e: dirichlet_kl(e, labels), evidence)
    assert check(diversity_loss, features)
    assert check(lambda f: consistency_loss(f, reference), features)


# -- the loss of M opinions ----------------------------------------------------------------------


@pytest.fixture
def logits():
    return (2 * sample(B, M, K)).requires_grad_()


def loss_of(logits, *, epoch=1, **settings):
    config = CDCConfig(**{"loss_reduction": "mean", **settings})
    return classification_loss(config, logits, evidence_from_logits(logits), LABELS, epoch=epoch)


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
    found = loss_of(logits, loss_reduction="sum", kl_weight=1.0, kl_epochs=epochs, epoch=epoch)
    assert found.item() == pytest.approx(expected, rel=1e-9)


# -- switches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["trusted", "cross_entropy"])
@pytest.mark.parametrize(("fused", "opinions"), [(True, M + 1), (False, M)])
def test_a_sum_takes_as_many_times_the_step_of_a_mean_as_there_are_opinions(
    logits, loss, fused, opinions
):
    mean, total = (
        torch.autograd.grad(
            loss_of(logits, loss=loss, fused_loss=fused, loss_reduction=how), logits
        )[0]
        for how in ("mean", "sum")
    )
    torch.testing.assert_close(total, opinions * mean, rtol=1e-12, atol=0)


def test_plain_cross_entropy_is_each_templates_own(logits):
    each = [F.cross_entropy(logits[:, m], LABELS) for m in range(M)]
    found = loss_of(logits, loss="cross_entropy", fused_loss=False)
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
    alone = loss_of(logits, loss="cross_entropy", fused_loss=False, loss_reduction="sum")
    found = loss_of(logits, loss="cross_entropy", fusion=fusion, loss_reduction="sum")
    torch.testing.assert_close(found, alone + fused)


# -- regularisers --------------------------------------------------------------------------------


def regularisers(text, image, **weights):
    handcrafted, frozen = sample(K, E, seed=8), sample(B, M, E, seed=9)
    config = CDCConfig(**{"beta": 0.0, "gamma": 0.0, **weights})
    return losses.regularisers(config, text, image, handcrafted=handcrafted, frozen=frozen)


def test_each_weight_brings_its_own_term():
    text, image = sample(M, K, E, seed=1), sample(B, M, E, seed=2)
    alone = {"beta_image": 0.0, "gamma_image": 0.0}  # not as the texts' weights
    terms = {
        "beta": diversity_loss(text),
        "beta_image": diversity_loss(image.transpose(0, 1)),
        "gamma": consistency_loss(text, sample(K, E, seed=8)),
        "gamma_image": consistency_loss(image, sample(B, M, E, seed=9)),
    }
    assert regularisers(text, image) == 0
    for name, term in terms.items():
        assert regularisers(text, image, **alone | {name: 2.0}).item() == pytest.approx(
            2 * term.item()
        )
    total = regularisers(text, image, **dict.fromkeys(terms, 1.0))
    assert total.item() == pytest.approx(sum(term.item() for term in terms.values()))


# -- how much members differ ----------------------------------------------------------------------


def test_the_measures_are_the_means_over_pairs():
    correct = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) < 0.7
    rows = correct.numpy()
    pairs = list(itertools.combinations(range(4), 2))
    q = []
    for i, j in pairs:
        a, b, c, d = (
            np.sum((rows[:, i] == x) & (rows[:, j] == y))
            for x, y in ((True, True), (True, False), (False, True), (False, False))
        )
        q.append((a * d - b * c) / (a * d + b * c))
    found = pair_diversity(correct)
    disagreement = np.mean([np.mean(rows[:, i] != rows[:, j]) for i, j in pairs])
    correlation = np.mean([matthews_corrcoef(rows[:, i], rows[:, j]) for i, j in pairs])
    assert found["disagreement"] == pytest.approx(disagreement)
    assert found["q"] == pytest.approx(np.mean(q))
    assert found["error_correlation"] == pytest.approx(correlation)


def test_equal_members_do_not_differ_and_members_without_errors_have_no_correlation():
    right = torch.tensor([[True], [False], [True]]).expand(-1, 3)
    assert pair_diversity(right) == {"disagreement": 0.0, "q": 1.0, "error_correlation": 1.0}
    found = pair_diversity(torch.ones(5, 2, dtype=torch.bool))
    assert math.isnan(found["q"]) and math.isnan(found["error_correlation"])


def test_residuals_separate_directions_and_not_what_all_share():
    generator = torch.Generator().manual_seed(1)
    shared, own = torch.randn(3, 16, generator=generator), torch.eye(16)[:2].unsqueeze(1) * 1e-3
    texts = shared + own.expand(-1, 3, -1)
    assert diversity_loss(texts) > 0.999
    residuals = residual_directions(texts, shared)
    assert diversity_loss(residuals) < 0.5
    config = CDCConfig(n_templates=2, beta=2.0, gamma=0.0, beta_image=0.0, diversity_of="residuals")
    loss = losses.regularisers(config, texts, texts, handcrafted=shared, frozen=None)
    torch.testing.assert_close(loss, 2 * diversity_loss(residuals))


def test_each_template_is_held_at_its_own_anchor():
    texts = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(2))
    config = CDCConfig(n_templates=2, beta=0.0, gamma=1.0, anchors=("a {}.", "the {}."))
    loss = losses.regularisers(config, texts, texts, handcrafted=texts.flip(0), frozen=None)
    each = [consistency_loss(texts[m : m + 1], texts[1 - m]) for m in range(2)]
    torch.testing.assert_close(loss, sum(each) / 2)
    assert losses.regularisers(config, texts, texts, handcrafted=texts, frozen=None).abs() < 1e-6
