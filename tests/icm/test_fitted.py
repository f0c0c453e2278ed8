"""Fits are restored from tensors and facts; probes equal scikit-learn's, the sweep lpclip's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from folding import fold_of
from sklearn.linear_model import LogisticRegression

from causalclip.icm.fitted import FittedICM, fit_probe, fit_probes, sweep_c
from causalclip.icm.folds import Fold
from causalclip.icm.search import Chosen
from causalclip.icm.selection import Choice

DIM = 6


def world() -> Fold:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    z = np.eye(3, DIM)[labels] * 2 + rng.normal(size=(90, DIM))
    return fold_of("ink", z, z + rng.normal(size=(90, DIM)) * np.arange(DIM), labels)


def fitted() -> FittedICM:
    fold, cells = world(), {"zeroshot": 2, "linear_probe": 3}
    choices = {head: Choice("generalized", 0.1, k) for head, k in cells.items()}
    chosen = {head: Chosen(choice, choice.solve(fold.moments)) for head, choice in choices.items()}
    projections = {head: found.projection for head, found in chosen.items()}
    facts = {"heads": {head: found.record() for head, found in chosen.items()}}
    return FittedICM(projections, fit_probes([fold], projections["linear_probe"], 3), facts)


def test_tensors_and_facts_that_went_through_json_give_the_fit_again():
    fit = fitted()
    again = FittedICM.from_state(fit.state(), json.loads(json.dumps(fit.facts)))
    assert again.facts == fit.facts and list(again.state()) == list(fit.state())
    assert all(torch.equal(tensor, again.state()[name]) for name, tensor in fit.state().items())
    for head, projection in fit.projections.items():
        assert again.projections[head].settings == projection.settings


def test_where_all_dimensions_stay_the_probe_inside_says_what_the_plain_one_says():
    fold = world()
    turned = Choice("difference", 0.0, DIM).solve(fold.moments)
    probes = fit_probes([fold], turned, 3)
    inside = probes["icm"].logits(turned(fold.features))
    torch.testing.assert_close(inside, probes["plain"].logits(fold.features))
    scaled = Choice("generalized", 0.1, DIM, orthonormal=False).solve(fold.moments)
    assert not scaled.turns_only  # lengths change, and with them what the penalty is about


def test_the_names_of_a_checkpoint_stay():
    projection = ["basis", "spectrum", "intervention_energy", "feature_energy"]
    names = [f"{head}_{name}" for head in ("zeroshot", "linear_probe") for name in projection]
    probes = [f"probe_{name}_{part}" for name in ("plain", "icm") for part in ("weight", "bias")]
    assert list(fitted().state()) == names + probes


def test_a_fit_without_probes_has_none():
    fit = fitted()
    facts = {"heads": {"zeroshot": fit.facts["heads"]["zeroshot"]}}
    only = FittedICM({"zeroshot": fit.projections["zeroshot"]}, facts=facts)
    assert not FittedICM.from_state(only.state(), facts).probes


# -- the linear probe ----------------------------------------------------------------------------


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


def test_one_class_only_is_refused():
    x, _ = clusters(2)
    with pytest.raises(ValueError, match="images of two classes or more, got 1"):
        fit_probe(x, torch.zeros(len(x), dtype=torch.long), 2)
