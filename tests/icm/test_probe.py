"""The linear probe against scikit-learn's own predictions, and lpclip's search written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from causalclip.icm.probe import fit_probe, sweep_c


def clusters(n_classes: int, n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    features = np.eye(n_classes, 6)[labels] * 2 + rng.normal(size=(n, 6))
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_probabilities_are_those_of_scikit_learn(n_classes):
    x, y = clusters(n_classes)
    probe = fit_probe(x, y, n_classes, c=0.316)
    model = LogisticRegression(C=0.316, max_iter=1000).fit(x.numpy(), y.numpy())
    probabilities = probe.logits(x.double()).softmax(-1).numpy()
    np.testing.assert_allclose(probabilities, model.predict_proba(x.numpy()), atol=1e-5)


def test_a_class_without_a_training_image_has_probability_zero():
    x, y = clusters(3)
    seen = y != 1
    probabilities = fit_probe(x[seen], y[seen], 4).logits(x).softmax(-1)
    assert (probabilities[:, [1, 3]] == 0).all()
    assert torch.allclose(probabilities.sum(-1), torch.ones(len(x)))


def test_the_sweep_is_lpclips():
    train, val = clusters(4, 24, seed=1), clusters(4, 40, seed=2)
    grid, steps = (1e4, 1.0, 1e-4), 4

    def accuracy(log_c: float) -> float:
        model = LogisticRegression(C=10.0**log_c, max_iter=1000)
        return model.fit(train[0].numpy(), train[1].numpy()).score(val[0].numpy(), val[1].numpy())

    coarse = [accuracy(np.log10(c)) for c in grid]
    peak = np.log10(grid[int(np.argmax(coarse))])
    left, right = peak - 1, peak + 1
    for _ in range(steps):
        if accuracy(left) < accuracy(right):
            answer, left = right, (left + right) / 2
        else:
            answer, right = left, (left + right) / 2
    found = sweep_c(train, val, 4, grid=grid, steps=steps)
    assert np.log10(found.c) == pytest.approx(answer, abs=1e-9)
    assert 100 * found.probe.accuracy(*val) == pytest.approx(100 * accuracy(answer))
    assert [row["c"] for row in found.sweep[:3]] == list(grid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"c": 0}, "c must be a positive number, got 0"),
        ({"max_iter": 0}, "max_iter must be a positive int, got 0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit_probe(*clusters(3), 3, **options)


def test_one_class_only_is_refused():
    x, _ = clusters(2)
    with pytest.raises(ValueError, match="images of two classes or more, got 1"):
        fit_probe(x, torch.zeros(len(x), dtype=torch.long), 2)
