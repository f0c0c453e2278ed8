"""Gains with their errors: SciPy's standard error, and Monte Carlo where there is no gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from folding import fold_of

from causalclip.icm.config import ICMConfig
from causalclip.icm.folds import Fold
from causalclip.icm.search import (
    choose,
    gain_of_choosing,
    grid_of,
    paired_gain,
    plain_choice,
    search,
    thin_evidence,
)
from causalclip.icm.selection import Choice, Scored, correct_mask

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


def gain_over(one: Scored, other: Scored):
    return paired_gain(list(zip(one.right, other.right, strict=True)))


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
        return torch.arange(100) % 2 == 0

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
        return [fold_of(str(i), z[i], redrawn[i], labels[i]) for i in range(3)]

    config = ICMConfig(
        grid_estimators=("generalized",), grid_eps=(0.1,), grid_dims=(4 / 6,), rule="best"
    )
    told = folds((z[:, :, 0] > 0).astype(int))
    real, _, gain, _ = search(config, told, classify)
    assert real.dim_inv == 4 and gain.exceeds(1.0)
    by_chance = folds(np.random.default_rng(5).integers(2, size=(3, 200)))
    noise, cells, gain, _ = search(config, by_chance, classify)
    assert noise.dim_inv == 6 and not gain.exceeds(1.0)
    assert [cell.choice.dim_inv for cell in cells] == [4, 6]
    blind, _, gain, _ = search(
        config, told, classify, judge=lambda _basis, _rest, x: torch.zeros(len(x))
    )
    assert blind.dim_inv == 6 and gain.points == 0
    choice, _, gain, _ = search(replace(config, select_margin=0.0), told, classify)
    assert gain is None and choice == real


def near_chance(seed: int, *, telling: float, n: int = 150, domains: int = 4) -> list[Fold]:
    """Domains in which a share of the images shows its class in one of six factors."""
    rng = np.random.default_rng(seed)
    folds = []
    for i in range(domains):
        z, labels = rng.normal(size=(n, 6)), rng.integers(2, size=n)
        shown = rng.random(n) < telling
        z[shown, 0] = np.where(labels[shown], 1, -1) * np.abs(z[shown, 0])
        redrawn = z + np.eye(6)[1:4].sum(0) * rng.normal(size=(n, 6))
        folds.append(fold_of(str(i), z, redrawn, labels))
    return folds


def by_first_factor(projection, _rest, features):
    axis = projection(torch.eye(6)[:1])
    return (projection(features.float()) @ axis.T)[:, 0].gt(0).long()


def test_near_chance_the_plain_features_stay_and_choosing_costs_nothing():
    config = ICMConfig(rule="best", grid_dims=(0.34, 0.5, 0.67), select_above_chance=10.0)
    moved, gains = 0, []
    for seed in range(40):
        *sources, target = near_chance(seed, telling=0.06)  # 53 % where chance is 50
        choice, *_ = search(config, sources, by_first_factor)
        assert choice.dim_inv == 6  # so the expected loss is none
        bold, *_ = search(replace(config, select_above_chance=0.0), sources, by_first_factor)
        right = [
            correct_mask(config, target.features, target.labels, sources, [cell], by_first_factor)
            for cell in (bold, choice)
        ]
        moved += bold.dim_inv < 6
        gains.append(100 * (right[0][0].double() - right[1][0].double()).mean().item())
    assert moved > 0  # without the guard some choices follow noise,
    assert np.mean(gains) < 1.0  # which gains nothing to speak of


def test_where_the_features_tell_the_guard_does_not_interfere():
    config = ICMConfig(rule="best", grid_dims=(0.34, 0.5, 0.67))
    *sources, _ = near_chance(0, telling=0.8)
    guarded, cells, *_ = search(config, sources, by_first_factor)
    assert guarded == search(replace(config, select_above_chance=0.0), sources, by_first_factor)[0]
    plain = next(cell for cell in cells if cell.choice == plain_choice(sources))
    assert thin_evidence(config, sources, plain) == ""
    few = [replace(fold, labels=fold.labels[:9]) for fold in sources]
    assert thin_evidence(config, few, plain) == "9 images in a source, fewer than 20"
    assert thin_evidence(replace(config, select_images=0), few, plain) == ""
    above = plain.mean - 50
    reason = thin_evidence(replace(config, select_above_chance=60.0), sources, plain)
    assert reason == f"plain features are {above:.1f} points above chance, not 60"


def test_the_worst_case_rule_takes_the_cell_with_the_best_worst_fold():
    rows = np.arange(100)
    shares = [(90, 80, 50), (70, 65, 62), (85, 60, 60), (62, 75, 62)]
    cells = [scored([rows < p for p in each], k) for k, each in enumerate(shares, start=1)]
    assert choose(cells) is cells[0]
    assert choose(cells, "worst_case") is cells[3]  # of two with 62, that of the better mean
    assert cells[3].record()["worst"] == pytest.approx(62)


def test_the_grid_has_every_strength_with_every_dimension_once():
    config = ICMConfig(grid_lams=(1.0,), grid_eps=(0.1, 0.3), grid_dims=(0.01, 0.5, 0.51, 1.0))
    cells = grid_of(config, 8)
    assert [(c.estimator, c.strength) for c in cells[::3]] == [
        ("difference", 1.0), ("generalized", 0.1), ("generalized", 0.3)
    ]  # fmt: skip
    assert [c.dim_inv for c in cells] == [1, 4, 8] * 3


def test_too_little_to_judge_is_refused():
    lone = scored([np.array([True])])
    with pytest.raises(ValueError, match="two images a fold, got 1"):
        gain_over(lone, lone)
