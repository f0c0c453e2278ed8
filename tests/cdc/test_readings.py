"""causalclip/cdc/readings.py: the five fusions against their definitions, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from causalclip.cdc.readings import fused, of_evidence, of_logits

B, M, K = 6, 4, 5


@pytest.fixture
def logits():
    return 3 * torch.randn(B, M, K, generator=torch.Generator().manual_seed(0)).double()


def dirichlet_mean(evidence):
    return (evidence + 1) / (evidence + 1).sum(-1, keepdims=True)


def test_a_discount_of_one_over_m_is_the_geometric_average_of_the_opinions(logits):
    evidence = logits.exp().numpy()
    # alpha-like strengths 1 + e / K of all templates, averaged geometrically class by class
    expected = np.ones((B, K))
    for m in range(M):
        expected = expected * (1 + evidence[:, m] / K) ** (1 / M)
    expected = K * (expected - 1)
    templates = of_evidence(logits.exp())[0]
    p, u = fused(logits, logits.exp(), templates, discount=1 / M)["discounted"]
    np.testing.assert_allclose(p, dirichlet_mean(expected), rtol=1e-12)
    np.testing.assert_allclose(u, K / (expected.sum(-1) + K), rtol=1e-12)


def test_the_other_fusions_are_what_they_are_called(logits):
    evidence = logits.exp()
    opinions = of_evidence(evidence)[0]
    answers = fused(logits, evidence, opinions, discount=0.5)
    found = {rule: p.numpy() for rule, (p, _) in answers.items()}
    np.testing.assert_allclose(found["averaging"], dirichlet_mean(evidence.mean(1).numpy()))
    each = [dirichlet_mean(evidence[:, m].numpy()) for m in range(M)]
    np.testing.assert_allclose(found["probabilities"], np.mean(each, axis=0))
    exponents = np.exp(logits.numpy().mean(1))
    np.testing.assert_allclose(found["logits"], exponents / exponents.sum(-1, keepdims=True))
    for rule in ("probabilities", "logits"):
        np.testing.assert_allclose(answers[rule][1], 1 - found[rule].max(-1))


def test_one_template_says_the_same_fused_and_alone(logits):
    one = logits[:, :1]
    opinion, softmax = of_evidence(one.exp()), of_logits(one)
    answers = fused(one, one.exp(), softmax[0], discount=1.0)
    alone = dict.fromkeys(("dempster", "discounted", "averaging"), opinion)
    for rule, answer in {**alone, "probabilities": softmax, "logits": softmax}.items():
        for found, expected in zip(answers[rule], answer, strict=True):
            torch.testing.assert_close(found, expected.squeeze(1))
