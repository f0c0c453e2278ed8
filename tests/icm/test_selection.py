"""Selection against brute force on the pairs themselves, scikit-learn, and a planted answer."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from folding import fold_of
from sklearn.linear_model import LogisticRegression, Ridge

from causalclip.icm.config import ICMConfig
from causalclip.icm.folds import Fold, pooled
from causalclip.icm.selection import (
    Choice,
    RidgeClassifier,
    Scored,
    best,
    leave_one_out,
    logistic_classifier,
    zeroshot_classifier,
)

D, K = 12, 4


def planted(seed: int = 0, *, domains: int = 4, n: int = 150):
    """Domains whose features hold the class in some directions and the domain in others.

    Within a domain the two go together, differently in each: what a classifier learns of the
    domain's part is wrong elsewhere. Returns the text features and, per domain, (z, z_do, labels);
    z_do redraws the domain's part.
    """
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(D, D)) / np.sqrt(D) + np.eye(D)
    centres = 3 * np.eye(K)
    data = []
    for _ in range(domains):
        labels = rng.integers(K, size=n)
        habits = 4 * rng.normal(size=(K, D - K))  # how the classes look in this domain
        inv = centres[labels] + 0.4 * rng.normal(size=(n, K))
        var = habits[labels] + rng.normal(size=(n, D - K))
        redrawn = 4 * rng.normal(size=(n, D - K))
        z, z_do = (np.concatenate([inv, v], axis=1) @ mix.T for v in (var, redrawn))
        data.append([torch.from_numpy(a).float() for a in (z, z_do)] + [torch.from_numpy(labels)])
    text = torch.from_numpy(np.concatenate([centres, np.zeros((K, D - K))], axis=1) @ mix.T).float()
    return text, data


def folds_of(data) -> list[Fold]:
    return [fold_of(f"domain {i}", *pairs) for i, pairs in enumerate(data)]


def grid() -> list[Choice]:
    cells = [("difference", 1.0), ("generalized", 0.01)]
    return [Choice(name, strength, k) for name, strength in cells for k in (2, 4, D)]


def brute_force(choice: Choice, z: np.ndarray, z_do: np.ndarray) -> np.ndarray:
    """The basis from the stacked pairs, with SciPy."""
    z, z_do = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, z_do))
    d = z - z_do
    features, changes = z.T @ z / len(z), d.T @ d / len(d)
    if choice.estimator == "difference":
        vectors = scipy.linalg.eigh(features - choice.strength * changes)[1]
    else:
        ridge = choice.strength * np.trace(changes) / D * np.eye(D)
        vectors = scipy.linalg.eigh(features, changes + ridge)[1]
    return np.linalg.qr(vectors[:, ::-1][:, : choice.dim_inv])[0]


def test_every_cell_equals_brute_force_on_the_pairs_of_the_other_folds():
    text, data = planted()
    scored = leave_one_out(ICMConfig(), folds_of(data), grid(), zeroshot_classifier(text))
    for cell in scored:
        for held, accuracy in enumerate(cell.accuracies):
            rest = [pairs for i, pairs in enumerate(data) if i != held]
            z, z_do = (torch.cat([pairs[j] for pairs in rest]).double().numpy() for j in (0, 1))
            basis = brute_force(cell.choice, z, z_do)
            x, t = data[held][0].double().numpy() @ basis, text.double().numpy() @ basis
            cosine = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (
                t / np.linalg.norm(t, axis=1, keepdims=True)
            ).T
            right = cosine.argmax(1) == data[held][2].numpy()
            assert accuracy == pytest.approx(100 * right.mean(), abs=1e-6)


def test_the_ridge_classifier_is_scikit_learns_ridge_on_one_hot_classes():
    _, data = planted(seed=1)
    folds = folds_of(data)
    projection = Choice("generalized", 0.1, 5).solve(pooled(folds))
    classifier = RidgeClassifier(folds, K, ridge=0.1)
    x = projection(torch.cat([z for z, _, _ in data[:3]]).double()).numpy()
    y = torch.cat([labels for _, _, labels in data[:3]]).numpy()
    model = Ridge(alpha=0.1 * np.square(x).sum(0).mean()).fit(x, np.eye(K)[y])
    expected = model.predict(projection(data[3][0].double()).numpy()).argmax(1)
    assert (classifier(projection, folds[:3], data[3][0]).numpy() == expected).all()


def test_the_logistic_classifier_is_scikit_learns_on_projected_features():
    _, data = planted(seed=1)
    folds = folds_of(data)
    projection = Choice("generalized", 0.1, 5).solve(pooled(folds))
    x, y = (torch.cat([pairs[j] for pairs in data[:3]]) for j in (0, 2))
    model = LogisticRegression(C=0.5, max_iter=1000).fit(projection(x).numpy(), y.numpy())
    expected = model.predict(projection(data[3][0]).numpy())
    found = logistic_classifier(K, c=0.5)(projection, folds[:3], data[3][0])
    assert (found.numpy() == expected).mean() > 0.99


def test_the_closed_form_can_keep_what_the_probe_itself_would_leave():
    """Ridge regression solves a domain's habits away where logistic regression learns them.

    Here both find the planted four dimensions excellent; but ridge finds all twelve as good, so the
    tie goes to the plain features, on which the probe that is reported loses ten points and more.
    """
    _, data = planted(1)
    folds = folds_of(data)
    by_ridge = best(leave_one_out(ICMConfig(), folds, grid(), RidgeClassifier(folds, K))).choice
    by_probe = leave_one_out(ICMConfig(), folds, grid(), logistic_classifier(K))
    of_ridge = next(cell for cell in by_probe if cell.choice == by_ridge)
    assert by_ridge.dim_inv == D and best(by_probe).choice == Choice("generalized", 0.01, 4)
    assert best(by_probe).mean > of_ridge.mean + 10


def test_of_equal_cells_the_widest_is_chosen():
    cells = [Scored(Choice("generalized", 0.1, k), (50.0, 60.0)) for k in (2, 8, 4)]
    assert best([*cells, Scored(Choice("difference", 1.0, 12), (50.0, 50.0))]) is cells[1]


def test_bad_input_is_refused_with_what_is_allowed_and_what_came():
    text, data = planted()
    folds, classifier = folds_of(data[:2]), zeroshot_classifier(text)
    with pytest.raises(ValueError, match="at least two folds, got 1"):
        leave_one_out(ICMConfig(), folds[:1], grid(), classifier)
    with pytest.raises(ValueError, match="at least one choice, got none"):
        leave_one_out(ICMConfig(), folds, [], classifier)
