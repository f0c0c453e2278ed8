"""TDA against the published code, its paper's formulas, and a stream whose labels change."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import feature_inputs
from golden.cases import assert_close
from outputs import arrays_of, results
from torch.nn import functional as F

from causalclip.trainers.tda import Cache, TDAConfig, TestTimeCaches

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "features.npz")
SCALE = 12.0  # of the cosines; chosen so that both caches fill


def stream(n_classes: int = 5, width: int = 16):
    """Unit features (120, 16) in a fixed order, and CLIP's logits (120, 5)."""
    features, _ = feature_inputs.labelled("tda", n_classes, 24, width)
    order = np.argsort(feature_inputs.unit_stream("tda.order", (len(features),)), kind="stable")
    features = F.normalize(features[torch.from_numpy(order)], dim=-1)
    text = F.normalize(feature_inputs.texts("tda", n_classes, width), dim=-1)
    return features, SCALE * features @ text.T


def test_a_stream_gets_the_published_logits():
    caches = TestTimeCaches(TDAConfig(), 5)
    found = torch.stack([caches(*pair) for pair in zip(*stream(), strict=True)])
    assert_close(found, GOLDEN["tda/logits"], 1e-9, "logits")
    assert caches.negative.entropy.isfinite().any()
    assert not torch.allclose(found, stream()[1], atol=0.1)


def test_each_cache_keeps_the_most_certain_images_of_each_predicted_class():
    features, logits = stream()
    caches = TestTimeCaches(TDAConfig(), 5)
    for pair in zip(features, logits, strict=True):
        caches(*pair)
    p = logits.softmax(-1)
    entropy = -(p * p.log()).sum(-1)
    certain = entropy / math.log2(5)
    for cache, shots, may in (
        (caches.positive, 3, torch.ones(120, dtype=torch.bool)),
        (caches.negative, 2, (certain > 0.2) & (certain < 0.5)),
    ):
        for k in range(5):
            rows = torch.nonzero((p.argmax(-1) == k) & may).flatten()
            best = rows[entropy[rows].argsort()][:shots]
            kept = cache.entropy[k].sort().values
            torch.testing.assert_close(kept[: len(best)], entropy[best])
            assert kept[len(best) :].isinf().all()


def test_cache_logits_are_the_papers_sum():
    cache, z = Cache(3, 2), F.normalize(torch.randn(4, 5), dim=-1)
    assert not cache.logits(z[0], 2.0).any()
    values = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 0]])
    for label, key, value in zip((0, 2, 2), z[1:], values, strict=True):
        cache.add(label, key, value, 0.5)
    expected = sum(torch.exp(-2.0 * (1 - z[0] @ k)) * v for k, v in zip(z[1:], values, strict=True))
    torch.testing.assert_close(cache.logits(z[0], 2.0), expected)


def test_without_caches_it_is_zero_shot_clip():
    features, logits = stream()
    config = replace(TDAConfig(), positive_shots=0, negative_shots=0)
    caches = TestTimeCaches(config, 5)
    for pair in zip(features, logits, strict=True):
        assert torch.equal(caches(*pair), pair[1])


def test_a_run_says_its_order_and_reads_no_label(make_trainer, trained, tmp_path):
    trainer, folder = trained("TDA")
    record = results(folder)
    assert record["details"] == {"test_time": True, "order": "random, from SEED 1"}
    arrays = arrays_of(folder)
    paths = [item.impath for item in trainer.dm.dataset.test]
    assert list(arrays["path"]) != paths and sorted(arrays["path"]) == sorted(paths)
    blind = make_trainer("TDA", tmp_path)
    for item in blind.test_loader.dataset.data_source:
        item._label = 0
    blind.test()
    np.testing.assert_array_equal(arrays_of(tmp_path)["path"], arrays["path"])
    np.testing.assert_array_equal(arrays_of(tmp_path)["probabilities"], arrays["probabilities"])


def test_another_seed_is_another_order(trained, make_trainer, tmp_path):
    make_trainer("TDA", tmp_path, "SEED", 2).test()
    one, other = arrays_of(trained("TDA")[1]), arrays_of(tmp_path)
    assert list(one["path"]) != list(other["path"])
    rows = np.argsort(one["path"]), np.argsort(other["path"])
    assert not np.array_equal(one["probabilities"][rows[0]], other["probabilities"][rows[1]])


@pytest.mark.parametrize("value", [[0.5, 0.2], [0.1, 0.2, 0.3]])
def test_an_interval_has_two_ascending_ends(value, make_trainer, tmp_path):
    with pytest.raises(ValueError, match="TDA.NEGATIVE_MASK must be two numbers in ascending"):
        make_trainer("TDA", tmp_path, "TRAINER.TDA.NEGATIVE_MASK", value)
