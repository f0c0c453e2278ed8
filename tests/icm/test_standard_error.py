"""Gains with their errors: SciPy's standard error, and Monte Carlo where there is no gain."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from causalclip.icm.folds import Fold
from causalclip.icm.search import Search
from causalclip.icm.selection import Choice, Scored
from causalclip.icm.standard_error import choose, gain_of_choosing, gain_over, paired_gain
from causalclip.icm.subspace import InterventionMoments

D = 64


def scored(right: list[np.ndarray], dim_inv: int = 4, strength: float = 1.0) -> Scored:
    means = tuple(100 * float(fold.mean()) for fold in right)
    masks = tuple(torch.from_numpy(fold) for fold in right)
    return Scored(Choice("generalized", strength, dim_inv), means, masks)


def world(rng, *, cells: int = 40, folds: int = 3, n: int = 150, gain: float = 0.0):
    """Plain features, right on 60 % of images, and cells that differ from them on some images."""
    plain = [rng.random(n) < 0.6 for _ in range(folds)]
    others = []
    for i in range(cells):
        anew = [rng.random(n) < 0.3 for _ in range(folds)]
        right = [
            np.where(again, rng.random(n) < 0.6 + gain / 0.3, fold)
            for again, fold in zip(anew, plain, strict=True)
        ]
        others.append(scored(right, 1 + i))
    return scored(plain, D), others


def test_on_one_fold_the_error_is_scipys_of_the_paired_difference():
    rng = np.random.default_rng(0)
    one, other = rng.random(120) < 0.7, rng.random(120) < 0.6
    gain = gain_over(scored([one]), scored([other]))
    difference = 100 * (one.astype(float) - other)
    assert gain.points == pytest.approx(difference.mean())
    assert gain.standard_error == pytest.approx(scipy.stats.sem(difference))


def test_folds_of_unequal_size_weigh_the_same():
    rng = np.random.default_rng(1)
    sizes = (30, 300, 90)
    one, other = ([rng.random(n) < p for n in sizes] for p in (0.7, 0.6))
    gain = gain_over(scored(one), scored(other))
    differences = [100 * (a.astype(float) - b) for a, b in zip(one, other, strict=True)]
    assert gain.points == pytest.approx(np.mean([d.mean() for d in differences]))
    errors = [scipy.stats.sem(d) for d in differences]
    assert gain.standard_error == pytest.approx(np.sqrt(np.square(errors).sum()) / 3)


def test_the_error_is_the_spread_of_the_gain_over_repetitions():
    gains = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        plain, (other,) = world(rng, cells=1)
        gains.append(gain_over(other, plain))
    spread = np.std([gain.points for gain in gains])
    assert np.mean([gain.standard_error for gain in gains]) == pytest.approx(spread, rel=0.1)


def test_where_nothing_is_to_be_gained_plain_features_stay_in_five_of_six_choices():
    """The best of forty cells is nearly always a standard error above; left-out folds tell."""
    naive, honest = [], []
    for seed in range(200):
        plain, others = world(np.random.default_rng(seed))
        cells = [*others, plain]
        naive.append(gain_over(choose(cells), plain).exceeds(1.0))
        honest.append(gain_of_choosing(cells, plain).exceeds(1.0))
    # Binomial(200, .16): more than 46 has a chance of 0.4 %.
    assert sum(honest) <= 46
    assert sum(naive) > 150


def test_a_gain_that_is_there_is_taken():
    taken = 0
    for seed in range(40):
        plain, others = world(np.random.default_rng(seed), cells=10, gain=0.06)
        taken += gain_of_choosing([*others, plain], plain).exceeds(1.0)
    assert taken >= 36


def test_one_standard_error_takes_the_widest_cell_that_is_not_clearly_worse():
    rng = np.random.default_rng(0)
    base = rng.random(400) < 0.6
    better = base | (rng.random(400) < 0.5)
    nearly = better.copy()
    nearly[np.flatnonzero(better)[:1]] = False  # one image: a difference of one standard error
    cells = [scored([better], 4), scored([nearly], 8), scored([base], D)]
    assert choose(cells) is cells[0]
    assert choose(cells, "one_standard_error") is cells[1]


def test_a_gain_is_what_the_judge_finds_on_the_fold_left_out():
    rng = np.random.default_rng(3)
    plain, others = world(rng, cells=5, gain=0.09)
    cells = [*others, plain]
    assert gain_of_choosing(cells, plain).exceeds(1.0)
    asked = []

    def no_gain(fold, choice):
        asked.append((fold, choice.dim_inv))
        return scored([np.arange(100) % 2 == 0], choice.dim_inv)

    gain = gain_of_choosing(cells, plain, judge=no_gain)
    assert gain.points == 0 and not gain.exceeds(1.0)
    assert [fold for fold, _ in asked] == [0, 0, 1, 1, 2, 2]  # the choice and the plain features
    assert [k for _, k in asked[1::2]] == [D] * 3


def test_a_search_keeps_the_plain_features_where_labels_are_noise_and_not_where_they_count():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3, 200, 6))
    z[:, :, 4:] *= 6  # what interventions redraw drowns what tells the class
    redrawn = z.copy()
    redrawn[:, :, 4:] = 6 * rng.normal(size=(3, 200, 2))

    def classify(projection, rest, features):
        telling = torch.zeros(1, 6)
        telling[0, 0] = 1  # the class is the sign of the first factor
        inside, axis = projection(features.float()), projection(telling)
        return (inside / inside.norm(dim=1, keepdim=True) @ axis.T)[:, 0].gt(0.15).long()

    def folds(labels):
        return [
            Fold(
                str(i),
                InterventionMoments(6).update(*(torch.from_numpy(a[i]) for a in (z, redrawn))),
                None,
                *[torch.from_numpy(z[i]).float(), torch.from_numpy(labels[i])] * 2,
            )
            for i in range(3)
        ]

    search = Search([Choice("generalized", 0.1, 4)], 6, margin=1.0)
    real = search(folds((z[:, :, 0] > 0).astype(int)), classify)
    assert real.choice.dim_inv == 4 and real.gain.exceeds(1.0)
    noise = search(folds(np.random.default_rng(5).integers(2, size=(3, 200))), classify)
    assert noise.choice.dim_inv == 6 and not noise.gain.exceeds(1.0)
    assert [cell.choice.dim_inv for cell in noise.scored] == [4, 6]
    telling = folds((z[:, :, 0] > 0).astype(int))
    blind = search(telling, classify, judge=lambda _basis, _rest, x: torch.zeros(len(x)))
    assert blind.choice.dim_inv == 6 and blind.gain.points == 0
    unasked = Search(search.grid, 6)(folds((z[:, :, 0] > 0).astype(int)), classify)
    assert unasked.gain is None and unasked.choice == real.choice


def test_too_little_to_judge_is_refused():
    with pytest.raises(ValueError, match="at least one fold, got none"):
        paired_gain([])
    lone = scored([np.array([True])])
    with pytest.raises(ValueError, match="two images a fold, got 1"):
        gain_over(lone, lone)
    one_fold = scored([np.array([True, False])])
    with pytest.raises(ValueError, match="at least two folds, got 1"):
        gain_of_choosing([one_fold], one_fold)
