"""CLIP-ICM's statements on planted worlds, and worlds in which they fail; docs/theory.md."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.planted import World, explained
from causalclip.icm.certainty import largest_angle
from causalclip.icm.fitted import fit_probe
from causalclip.icm.pairs import Intervened

WORLD = World()
K = WORLD.dim_inv


# -- linear identifiability ----------------------------------------------------------------------


def independent(world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors that are drawn independently, and their features: what a regression is taken on."""
    fresh = world.but(confounding=0.0)
    return fresh.factors()[0], fresh.features()[0]


def test_inside_the_subspace_are_all_invariant_factors_and_no_variant_one():
    factors, z = independent(WORLD)
    r2 = explained(factors, z @ WORLD.estimate(eps=1e-3).basis)
    assert r2[:K].min() > 0.999
    assert r2[K:].max() < 0.02  # 16 regressors on 4,000 rows explain 0.4 % by chance


@pytest.mark.parametrize("moved", [47, 24])
def test_variant_factors_that_nothing_moves_pass_for_invariant_ones(moved):
    """The rank condition: pairs must differ in as many directions as there are variant factors."""
    world = WORLD.but(moved=moved)
    assert world.error(eps=1e-3) > 80
    if moved == 24:  # there are more such directions than the subspace can hold
        factors, z = independent(world)
        r2 = explained(factors, z @ world.estimate(eps=1e-3).basis)
        assert r2[:K].mean() < 0.6 and r2[K:].max() > 0.4


def test_factors_are_linear_in_features_only_where_features_are_as_many():
    """An embedding of fewer dimensions than factors cannot be inverted, whatever is estimated."""
    factors, z = independent(WORLD)
    assert explained(factors, z).min() > 1 - 1e-9
    assert explained(factors, z[:, :48]).mean() < 0.9


# -- recovery ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"lam": 1000.0}, {"eps": 1e-3}, {"eps": 0.01}])
def test_raw_features_and_a_strong_penalty_recover_the_planted_span_within_a_degree(options):
    assert all(World(seed=seed).error(**options) < 1 for seed in range(3))


def test_the_published_default_lambda_is_strong_enough_and_its_end_of_the_spectrum_is_not():
    assert WORLD.error(lam=1000.0) < 0.1
    assert WORLD.error(lam=1000.0, keep="reference") > 80


def test_our_defaults_recover_it_within_twenty_degrees_only():
    """Eps 0.3 and features of unit length: chosen by accuracy on CLIP's features, not for this."""
    angle = WORLD.error(eps=0.3, normalize=True)
    assert 15 < angle < 30
    bend = WORLD.error(lam=1000.0, normalize=True)
    assert 0.5 < bend < 6  # what normalising alone costs: f = A z is no longer linear


def test_the_angle_falls_with_lambda_and_with_eps():
    by_lam = [WORLD.error(lam=lam) for lam in (0.1, 1.0, 10.0, 100.0, 1000.0)]
    by_eps = [WORLD.error(eps=eps) for eps in (1.0, 0.3, 0.1, 0.01, 0.001)]
    for angles in (by_lam, by_eps):
        assert all(more > less for more, less in pairwise(angles))
        assert angles[0] > 60 and angles[-1] < 0.2


def test_under_noise_the_angle_falls_with_the_number_of_pairs_to_a_floor():
    angles = [WORLD.but(n_pairs=n, noise=0.1).error(eps=0.01) for n in (100, 300, 1000, 10_000)]
    assert angles[0] > 2 * angles[1] > 2 * angles[2]
    assert angles[-1] < angles[2]
    assert angles[-1] > 2  # noise is no intervention on factors: it moves everything, for good


def test_noise_and_interventions_that_move_the_class_turn_the_answer():
    by_noise = [WORLD.but(noise=noise).error(eps=0.01) for noise in (0.0, 0.1, 0.3, 1.0)]
    by_leak = [WORLD.but(leak=leak).error(eps=0.01) for leak in (0.0, 0.1, 0.3, 1.0)]
    for angles in (by_noise, by_leak):
        assert angles[0] < 1 and angles == sorted(angles)
        assert angles[-1] > 20


def test_a_large_lambda_fails_first_where_interventions_move_the_class():
    """The warning of docs/clip_icm.md: it keeps directions in which nothing happens at all."""
    world = WORLD.but(leak=1.0)
    assert world.error(lam=1000.0) > world.error(eps=0.01) + 20


# -- risk over environments ----------------------------------------------------------------------


def risks(world: World, basis: torch.Tensor) -> tuple[float, float]:
    """Squared error of least squares on z in its own environment and in one that turns a habit.

    The target is an invariant factor and what nobody sees of it; a variant factor follows the
    target, and follows its negative in the other environment.
    """
    rng = np.random.default_rng(7)
    s, _ = world.factors()
    y = s[:, 0] + torch.from_numpy(rng.normal(size=len(s)))
    features = []
    for habit in (1.0, -1.0):
        habitual = s.clone()
        habitual[:, K] = habit * y + 0.3 * s[:, K]
        features.append(habitual @ torch.from_numpy(world.mixing).T @ basis)
    fitted = torch.linalg.lstsq(features[0], y[:, None], driver="gelsd").solution[:, 0]
    own, other = ((x @ fitted - y).square().mean().item() for x in features)
    return own, other


def test_inside_the_subspace_the_risk_is_the_same_in_every_environment():
    own, other = risks(WORLD, WORLD.estimate(eps=1e-3).basis)
    assert other == pytest.approx(own, rel=0.05)
    plain_own, plain_other = risks(WORLD, torch.eye(WORLD.dim, dtype=torch.float64))
    assert plain_own < own  # what it gives up at home
    assert plain_other > 3 * other  # is what it loses abroad


@pytest.mark.slow
def test_on_shapes_the_risk_gap_between_environments_is_smaller_inside(
    make_trainer, few_shapes, tmp_path
):
    """A probe of confounded pictures (0.9) and the same shapes with everything variant changed."""
    options = ["MODEL.BACKBONE.NAME", "tiny", "DATASET.NAME", "CausalShapes"]
    options += ["DATASET.NUM_SHOTS", -1, "DATASET.SUBSAMPLE_CLASSES", "all"]
    options += ["DATASET.ROOT", str(few_shapes)]
    options += ["DATASET.SOURCE_DOMAINS", ["flat", "neon"], "DATASET.TARGET_DOMAINS", ["sketch"]]
    trainer = make_trainer("CLIP_ICM", tmp_path, *options)
    items, encode = trainer.dm.dataset.train_x, trainer.encoder.features
    paths = [item.impath for item in items]
    pictures, twins = encode(paths), encode([trainer.dm.dataset.twins[path] for path in paths])
    labels = torch.tensor([item.label for item in items])
    found = Intervened(pictures, [twins], paths).moments().solve(64, eps=0.01)
    spans = {"inside": found.basis[:, :24], "outside": found.basis[:, 24:], "plain": found.basis}
    risk = {name: _risks(pictures, twins, labels, basis) for name, basis in spans.items()}
    gap = {name: other - own for name, (own, other) in risk.items()}
    assert gap["inside"] < 0.6 * gap["plain"] and gap["inside"] < 0.6 * gap["outside"]
    assert risk["inside"][1] < risk["plain"][1]
    assert risk["inside"][0] < 0.8 * np.log(10)  # no gap is no merit of a probe that knows nothing


def _risks(pictures, twins, labels, basis: torch.Tensor) -> list[float]:
    """Cross-entropy of the pictures' probe, in nats: on the pictures and on their twins."""
    own, other = (torch.from_numpy(np.array(x)) @ basis.float() for x in (pictures, twins))
    probe = fit_probe(own, labels, int(labels.max()) + 1)
    return [F.cross_entropy(probe.logits(x), labels).item() for x in (own, other)]


def test_the_planted_span_is_what_moving_variant_factors_leaves_alone():
    """The world itself: by definition, and the angle is SciPy's of two spans."""
    before, after = WORLD.factors()
    torch.testing.assert_close(before[:, :K], after[:, :K])
    z, z_do = WORLD.features()
    assert ((z - z_do) @ WORLD.span).abs().max() < 1e-10
    assert largest_angle(WORLD.span, torch.from_numpy(WORLD.mixing[:, :K])) > 10
