"""Diversity of an ensemble against counts by hand and scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import matthews_corrcoef

from causalclip.cdc.config import CDCConfig
from causalclip.cdc.losses import (
    consistency_loss,
    diversity_loss,
    pair_diversity,
    regularisers,
    residual_directions,
)


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


@pytest.mark.parametrize("shape", [(5, 1), (0, 2), (5,)])
def test_too_few_members_or_images_are_named(shape):
    with pytest.raises(ValueError, match="at least two members, got shape"):
        pair_diversity(torch.ones(shape, dtype=torch.bool))


def test_residuals_separate_directions_and_not_what_all_share():
    generator = torch.Generator().manual_seed(1)
    shared, own = torch.randn(3, 16, generator=generator), torch.eye(16)[:2].unsqueeze(1) * 1e-3
    texts = shared + own.expand(-1, 3, -1)
    assert diversity_loss(texts) > 0.999
    residuals = residual_directions(texts, shared)
    assert diversity_loss(residuals) < 0.5
    config = CDCConfig(n_templates=2, beta=2.0, gamma=0.0, beta_image=0.0, diversity_of="residuals")
    loss = regularisers(config, texts, texts, handcrafted=shared, frozen=None)
    torch.testing.assert_close(loss, 2 * diversity_loss(residuals))


def test_each_template_is_held_at_its_own_anchor():
    texts = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(2))
    config = CDCConfig(n_templates=2, beta=0.0, gamma=1.0, anchors=("a {}.", "the {}."))
    loss = regularisers(config, texts, texts, handcrafted=texts.flip(0), frozen=None)
    each = [consistency_loss(texts[m : m + 1], texts[1 - m]) for m in range(2)]
    torch.testing.assert_close(loss, sum(each) / 2)
    assert regularisers(config, texts, texts, handcrafted=texts, frozen=None).abs() < 1e-6
