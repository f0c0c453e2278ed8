"""Coverage of the bootstrap's intervals in planted worlds, and Davis and Kahan's bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from causalclip.icm.certainty import (
    bootstrap,
    davis_kahan,
    largest_angle,
    principal_angles,
    share_kept,
)
from causalclip.icm.folds import Fold
from causalclip.icm.pairs import Intervened

D, K = 12, 4


def planted(n: int, *, seed: int, leak: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """z = (s_inv, s_var); interventions draw s_var anew and shake all of z by `leak`."""
    generator = torch.Generator().manual_seed(seed)
    s = torch.randn(n, D, generator=generator, dtype=torch.float64)
    s_do = torch.cat(
        [s[:, :K], torch.randn(n, D - K, generator=generator, dtype=torch.float64)], dim=1
    )
    return s, s_do + leak * torch.randn(n, D, generator=generator, dtype=torch.float64)


def generalized(moments):
    return moments.solve(K, eps=0.1)


def fold(z, z_do, name: str = "ink") -> Fold:
    """Images (N, D) with an intervention each (N, D), or several (N, R, D)."""
    draws = [z_do] if z_do.dim() == 2 else z_do.unbind(1)
    changed, names = [draw.numpy() for draw in draws], [str(i) for i in range(len(z))]
    seen = Intervened(z.numpy(), changed, names, normalize=False)
    labels = torch.zeros(len(z), dtype=torch.long)
    return Fold(name, seen.moments(), None, z, labels, z, seen)


def test_angles_and_kept_shares_of_a_known_turn():
    turn = np.deg2rad(30)
    plane = torch.eye(4, dtype=torch.float64)[:, :2]
    turned = plane.clone()
    turned[:, 1] = torch.tensor([0, np.cos(turn), np.sin(turn), 0])
    found = principal_angles(plane, turned)
    assert found["largest_angle"] == largest_angle(plane, turned) == pytest.approx(30)
    assert found["mean_angle"] == pytest.approx(15) and found["chance"] == 0.5
    assert found["overlap"] == pytest.approx((1 + np.cos(turn) ** 2) / 2)
    moment = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    assert share_kept(3 * plane, moment) == pytest.approx(3 / 10)


def test_the_interval_covers_the_distance_to_the_truth():
    """The bootstrap's 95 % angle is as large as the real error's in most repetitions."""
    truth = torch.eye(D, dtype=torch.float64)[:, :K]
    covered = []
    for seed in range(20):
        z, z_do = planted(200, seed=seed, leak=0.3)
        images = fold(z, z_do)
        sure = bootstrap([images], generalized, n=30, seed=seed)
        error = largest_angle(truth, generalized(images.moments).basis)
        covered.append(error <= sure.quantile(0.95))
    # Binomial(20, .95): fewer than 15 has a chance below 1e-3.
    assert sum(covered) >= 15


def difference(moments):
    return moments.solve(K, lam=1.0)


def test_folds_are_drawn_from_each_by_itself_and_say_as_much_as_their_images_at_once():
    z, z_do = planted(600, seed=1, leak=0.3)
    apart = [fold(z[i::3], z_do[i::3], str(i)) for i in range(3)]
    sure = bootstrap(apart, generalized, n=60)
    once = bootstrap([fold(z, z_do)], generalized, n=60)
    assert sure.quantile(0.95) == pytest.approx(once.quantile(0.95), rel=0.25)
    assert sure == bootstrap(apart, generalized, n=60)


def test_the_bound_holds_for_the_resamples_it_is_about_and_says_nothing_of_ratios():
    folds = [fold(*planted(4000, seed=1, leak=0.1))]
    sure = bootstrap(folds, difference, n=40)
    assert sure.gap > 0 and sure.quantile(0.95) <= sure.bound < 90
    assert sure.determined and sure.record()["angle_95"] == sure.quantile(0.95)
    assert bootstrap(folds, generalized, n=20).bound is None
    whole = bootstrap(folds, lambda moments: moments.solve(D, lam=1.0), n=20)
    assert whole.gap is None and whole.bound is None and whole.quantile(1) < 1e-3


def test_where_nothing_is_invariant_the_subspace_is_not_determined():
    generator = torch.Generator().manual_seed(0)
    z, z_do = (torch.randn(300, D, generator=generator, dtype=torch.float64) for _ in range(2))
    assert bootstrap([fold(z, z_do)], generalized, n=20).quantile(0.5) > 45
    sure = bootstrap([fold(z, z_do)], difference, n=20)
    assert not sure.determined and sure.bound == 90
    with pytest.raises(ValueError, match="needs image pairs, ink has none"):
        bootstrap([replace(fold(z, z_do), intervened=None)], difference)


@given(st.integers(0, 10_000), st.floats(0.01, 0.6))
def test_no_perturbation_turns_an_eigenspace_further_than_the_bound(seed, size):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    matrix = q @ np.diag([4.0, 3.5, 3.0, 1.0, 0.8, 0.5, 0.2, 0.0]) @ q.T
    noise = rng.normal(size=(8, 8))
    noise = size * (noise + noise.T) / np.linalg.norm(noise + noise.T, 2)
    before, after = (np.linalg.eigh(m)[1][:, -3:] for m in (matrix, matrix + noise))
    angle = largest_angle(torch.from_numpy(before), torch.from_numpy(after))
    assert angle <= davis_kahan(2.0, size) + 1e-6


def test_the_bound_is_reached_up_to_its_slack_and_silent_without_a_gap():
    assert davis_kahan(2.0, 0.0) == 0
    assert davis_kahan(2.0, 1.0) == 90
    assert davis_kahan(0.0, 0.1) == 90
    # Turning a plane by hand: sin(2 theta) = 2 |E| / gap, of which the bound is within twice.
    gap, size = 1.0, 0.05
    exact = 0.5 * np.degrees(np.arctan(2 * size / gap))
    assert exact <= davis_kahan(gap, size) <= 2 * exact
