"""CDC's losses, against Monte Carlo, torch.distributions and loops over pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Dirichlet
from torch.nn import functional as F

from causalclip.cdc.losses import (
    consistency_loss,
    dirichlet_kl,
    diversity_loss,
    template_cosines,
    trusted_cross_entropy,
)


def sample(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_trusted_cross_entropy_is_the_expected_cross_entropy_of_dirichlet_samples():
    torch.manual_seed(0)
    evidence, labels = sample(3, 4).exp(), torch.tensor([0, 3, 1])
    draws = Dirichlet(evidence + 1).sample((200_000,))
    losses = -draws.log()[:, torch.arange(3), labels].mean(-1)
    # Five standard errors of the Monte Carlo mean.
    error = 5 * losses.std() / math.sqrt(len(losses))
    assert abs(trusted_cross_entropy(evidence, labels) - losses.mean()) < error


def test_without_evidence_the_loss_is_that_of_a_uniform_dirichlet():
    for n_classes in (2, 10, 1000):
        loss = trusted_cross_entropy(torch.zeros(2, n_classes).double(), torch.tensor([0, 1]))
        expected = torch.digamma(torch.tensor([n_classes, 1.0]).double()).diff().neg()
        torch.testing.assert_close(loss, expected.squeeze())


def test_with_much_evidence_the_loss_is_the_cross_entropy_of_the_mean():
    evidence, labels = 1e6 * sample(5, 4).exp(), torch.tensor([0, 1, 2, 3, 0])
    expected = F.nll_loss(Dirichlet(evidence + 1).mean.log(), labels)
    torch.testing.assert_close(trusted_cross_entropy(evidence, labels), expected, rtol=1e-5, atol=0)


def test_extra_axes_are_averaged_over_like_samples():
    evidence, labels = sample(3, 5, 4).exp(), torch.tensor([[0, 1, 2, 3, 0]])
    per_template = [trusted_cross_entropy(e, labels[0]) for e in evidence]
    torch.testing.assert_close(
        trusted_cross_entropy(evidence, labels), torch.stack(per_template).mean()
    )


def test_the_loss_and_its_gradient_are_finite_at_the_largest_evidence():
    exponents = torch.tensor([[80.0, -80.0, 0.0], [0.0, 80.0, 80.0]], requires_grad=True)
    loss = trusted_cross_entropy(exponents.exp(), torch.tensor([1, 0]))
    loss.backward()
    assert loss.isfinite() and exponents.grad.isfinite().all()
    # The evidence that contradicts the label pulls with full strength.
    torch.testing.assert_close(exponents.grad[0, 0], torch.tensor(0.5))


def test_the_kl_term_is_the_expected_log_density_ratio_without_the_true_class():
    torch.manual_seed(0)
    evidence, labels = sample(2, 3).exp(), torch.tensor([2, 0])
    alpha = evidence + 1
    alpha[[0, 1], labels] = 1.0
    wrong = Dirichlet(alpha)
    draws = wrong.sample((200_000,))
    ratio = (wrong.log_prob(draws) - Dirichlet(torch.ones_like(alpha)).log_prob(draws)).mean(-1)
    error = 5 * ratio.std() / math.sqrt(len(ratio))
    assert abs(dirichlet_kl(evidence, labels) - ratio.mean()) < error


def test_the_kl_term_is_zero_for_evidence_of_the_true_class_alone():
    evidence = torch.tensor([[7.0, 0.0, 0.0], [0.0, 1e9, 0.0]])
    assert dirichlet_kl(evidence, torch.tensor([0, 1])) == 0


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


def test_diversity_has_its_stated_range():
    same = sample(1, 3, 8).expand(4, 3, 8)
    torch.testing.assert_close(diversity_loss(same), torch.tensor(1.0).double())
    # Corners of a regular simplex are as far apart as M directions can be.
    corners = torch.eye(4).double() - 1 / 4
    torch.testing.assert_close(diversity_loss(corners), torch.tensor(-1 / 3).double())
    orthogonal = torch.eye(4).double()
    assert diversity_loss(orthogonal).item() == pytest.approx(0, abs=1e-12)


def test_a_single_template_has_no_diversity_to_lose():
    assert diversity_loss(sample(1, 3, 8)) == 0


def test_the_templates_cosines_are_those_of_each_pair():
    features = sample(3, 4, 8)
    found = template_cosines(features)
    for m in range(3):
        for n in range(3):
            mean = F.cosine_similarity(features[m], features[n], dim=-1).mean()
            assert found[m, n].item() == pytest.approx(mean.item(), abs=1e-6)


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
