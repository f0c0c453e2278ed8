"""The invariant subspace: the published code's arithmetic, SciPy, sklearn, and streaming.

For the results in planted worlds see test_theory.py.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file

from benchmarks.planted import World
from causalclip.icm.certainty import largest_angle
from causalclip.icm.subspace import BLOCK, InterventionMoments, InvariantProjection

DIM, DIM_INV, N_PAIRS = 64, 16, 4000


@dataclasses.dataclass
class Pairs:
    """Features z and their twins z_do, with the planted span."""

    z: torch.Tensor
    z_do: torch.Tensor
    span: torch.Tensor | None = None


def planted_world(seed=0, dim=DIM, dim_inv=DIM_INV, n=N_PAIRS):
    world = World(seed=seed, dim=dim, dim_inv=dim_inv, n_pairs=n)
    return Pairs(*world.features(), world.span)


def moments_of(world, batch=500, **options):
    moments = InterventionMoments(world.z.shape[1], **options)
    for z, z_do in zip(world.z.split(batch), world.z_do.split(batch), strict=True):
        moments.update(z, z_do)
    return moments


def projector(projection):
    return projection.basis @ projection.basis.T


def energy_kept(basis, rows):
    """Share of the rows' squared length inside the basis's span, by projecting every row."""
    span = torch.linalg.qr(basis).Q
    return (rows @ span @ span.T).square().sum() / rows.square().sum()


def published_basis(z, z_do, lamda, dim_inv):
    """The published estimate, pair by pair: sums, ascending `eigh`, first columns."""
    dim = z.shape[1]
    reconstruct, consistent = np.zeros((dim, dim)), np.zeros((dim, dim))
    for row, twin in zip(z.numpy(), z_do.numpy(), strict=True):
        reconstruct += np.outer(row, row)
        consistent += np.outer(row - twin, row - twin)
    _, vectors = np.linalg.eigh(reconstruct / len(z) - lamda * consistent / len(z))
    return vectors[:, :dim_inv]


def published_logits(basis, image, text):
    """100 z_j t_j summed over the projected coordinates: no norm is taken after projecting."""
    z, t = image.numpy() @ basis, text.numpy() @ basis
    return np.array([[100.0 * sum(a * b for a, b in zip(i, j, strict=True)) for j in t] for i in z])


# The defaults


@pytest.mark.parametrize("seed", range(3))
def test_the_default_removes_the_interventions_and_finds_the_invariant_factors(seed):
    world = planted_world(seed)
    projection = moments_of(world).solve(DIM_INV)
    assert projection.intervention_energy_kept < 0.01
    # The cost of the default eps; test_theory.py takes it to its limit.
    assert largest_angle(projection.basis, world.span) < 25


def test_a_large_lambda_keeps_directions_in_which_nothing_happens_and_the_ratio_does_not():
    # Along the axes: the class, moved a little by interventions; the style; and nothing at all.
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2000, 3, generator=generator) * torch.tensor([1.0, 1.0, 1e-3])
    change = torch.randn(2000, 3, generator=generator) * torch.tensor([0.4, 1.0, 1e-3])
    moments = InterventionMoments(3, normalize=False).update(z, z + change)
    kept = {
        name: moments.solve(1, **options).basis.abs().argmax().item()
        for name, options in {
            "small": {"lam": 1.0},
            "large": {"lam": 10.0},
            "ratio": {"eps": 0.1},
        }.items()
    }
    assert kept == {"small": 0, "large": 2, "ratio": 0}


# The estimate against other people's linear algebra


def test_reference_predictions_equal_the_published_arithmetic():
    world = planted_world(dim=24, dim_inv=8, n=600)
    images, texts = 3 * world.z[:50], world.z[50:60]
    for lamda in (0.5, 10.0, 1000.0):
        projection = moments_of(world, normalize=False).solve(8, lam=lamda, keep="reference")
        basis = published_basis(world.z, world.z_do, lamda, 8)
        np.testing.assert_allclose(
            projection.cosine_logits(images, texts, 100.0, normalize=False).numpy(),
            published_logits(basis, images, texts),
            rtol=1e-8,
            atol=1e-8,
        )


@pytest.mark.parametrize("eps", [1e-3, 0.3])
def test_the_generalized_problem_is_scipys(eps):
    world = planted_world(dim=24, dim_inv=8, n=600)
    d = world.z - world.z_do
    change = (d.T @ d / 600).numpy()
    ridge = eps * np.trace(change) / 24 * np.eye(24)
    values, vectors = scipy.linalg.eigh((world.z.T @ world.z / 600).numpy(), change + ridge)
    projection = moments_of(world, normalize=False).solve(8, eps=eps, orthonormal=False)
    np.testing.assert_allclose(projection.spectrum.flip(0), values, rtol=1e-8)
    expected = vectors[:, -8:] @ vectors[:, -8:].T
    np.testing.assert_allclose(projector(projection), expected, atol=1e-8 * abs(expected).max())


def test_the_energy_shares_are_those_of_projecting_every_pair():
    world = planted_world(dim=24, dim_inv=8, n=600)
    for options in ({"lam": 1.0}, {"eps": 0.1}, {"eps": 0.1, "orthonormal": False}):
        projection = moments_of(world, normalize=False).solve(8, **options)
        for k in (1, 5, 8):
            columns = projection.basis[:, :k]
            changes = energy_kept(columns, world.z - world.z_do)
            assert projection.intervention_energy[k - 1].item() == pytest.approx(changes.item())
            features = energy_kept(columns, world.z)
            assert projection.feature_energy[k - 1].item() == pytest.approx(features.item())


# Streaming


def bases(moments):
    return [moments.solve(DIM_INV, **o).basis for o in ({"lam": 1.0}, {"eps": 0.1})]


def test_any_batches_in_any_order_and_merged_shards_give_the_same_projection():
    world = planted_world()
    expected = bases(moments_of(world))
    order = torch.randperm(N_PAIRS, generator=torch.Generator().manual_seed(0))
    shards = [moments_of(Pairs(world.z[i::3], world.z_do[i::3])) for i in range(3)]
    merged = shards[2] + shards[0] + shards[1]
    assert merged.n_pairs == N_PAIRS
    for moments in (
        moments_of(world, 7),
        moments_of(world, N_PAIRS),
        moments_of(Pairs(world.z[order], world.z_do[order])),
        merged,
        shards[0].merge(shards[1] + shards[2]),
    ):
        for ours, wanted in zip(bases(moments), expected, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-10)


def test_moments_are_numpys_of_unit_vectors_in_double_for_any_batch_axes():
    world = planted_world(dim=8, dim_inv=3, n=24)
    z, z_do = world.z.float(), world.z_do.float()
    unit, unit_do = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (z, z_do))
    d = unit - unit_do
    grid = InterventionMoments(8).update(z.view(4, 6, 8), z_do.view(4, 6, 8))
    one_by_one = InterventionMoments(8)
    for pair in zip(z, z_do, strict=True):
        assert one_by_one.update(*pair) is one_by_one
    changes = InterventionMoments(8).update_changes(z, d)
    raw = InterventionMoments(8, normalize=False).update(unit, unit_do)
    for moments in (grid, one_by_one, changes, raw):
        assert moments.n_pairs == 24 and moments.features.dtype == torch.float64
        torch.testing.assert_close(moments.features, unit.T @ unit / 24, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(moments.changes, d.T @ d / 24, rtol=1e-12, atol=1e-14)


# The frozen result


def small_projection(dim_inv=3, **options):
    return moments_of(planted_world(dim=8, dim_inv=3, n=60)).solve(dim_inv, **options)


def test_cosine_logits_are_scaled_cosines_in_the_subspace():
    projection, generator = small_projection(), torch.Generator().manual_seed(0)
    image, text = (torch.randn(n, 8, generator=generator) for n in (4, 5))
    logits = projection.cosine_logits(image, text, 100.0)
    assert logits.dtype == torch.float32 and logits.shape == (4, 5)
    expected = torch.nn.functional.cosine_similarity(
        projection(image)[:, None], projection(text)[None], dim=-1
    )
    torch.testing.assert_close(logits, 100 * expected)
    batched = projection.cosine_logits(image.view(2, 2, 8), text, 100.0)
    torch.testing.assert_close(batched.view(4, 5), logits)


@pytest.mark.parametrize("options", [{"lam": 3.0}, {"eps": 0.1}, {"orthonormal": False}])
def test_fewer_columns_of_a_projection_are_the_smaller_projection(options):
    shortened, expected = small_projection(6, **options).first(2), small_projection(2, **options)
    for field in ("basis", "spectrum", "intervention_energy", "feature_energy"):
        torch.testing.assert_close(getattr(shortened, field), getattr(expected, field))
    assert shortened.dim_inv == 2 and shortened.settings == expected.settings


def test_a_saved_projection_loads_unchanged(tmp_path):
    projection, path = small_projection(lam=2.0), tmp_path / "deep" / "projection.safetensors"
    projection.save(path)
    projection.save(path)
    loaded = InvariantProjection.load(path)
    assert loaded.settings == projection.settings
    for name in ("basis", "spectrum", "intervention_energy", "feature_energy"):
        assert torch.equal(getattr(loaded, name), getattr(projection, name))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_foreign_file_is_refused(tmp_path):
    save_file({"basis": torch.eye(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="must hold causalclip.InvariantProjection/1, got None"):
        InvariantProjection.load(tmp_path / "other.safetensors")


# Bad input


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("side", [0, 1])
def test_unusable_features_are_named(value, side):
    pair = [torch.ones(3, 4), torch.ones(3, 4)]
    pair[side][1] = value
    with pytest.raises(ValueError, match="got 1 bad of 3 pairs, the first: dog.jpg"):
        InterventionMoments(4).update(*pair, names=["cat.jpg", "dog.jpg", "cow.jpg"])
    with pytest.raises(ValueError, match="the first: pair 1"):
        InterventionMoments(4).update(*pair)


def test_a_refused_batch_leaves_the_moments_as_they_were():
    moments = moments_of(planted_world(dim=4, dim_inv=2, n=20))
    before = moments.features.clone()
    late = torch.ones(2 * BLOCK, 4)
    late[-1] = torch.nan
    for update in (moments.update, moments.update_changes):
        with pytest.raises(ValueError, match="finite"):
            update(torch.ones_like(late), late)
    assert torch.equal(moments.features, before) and moments.n_pairs == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim_inv": 0}, r"dim_inv must be an int in \[1, 8\], got 0"),
        ({"dim_inv": 9}, r"dim_inv must be an int in \[1, 8\], got 9"),
        ({"dim_inv": 2.5}, r"dim_inv must be an int in \[1, 8\], got 2.5"),
        ({"lam": -1.0}, "lam must be a number >= 0, got -1.0"),
        ({"lam": float("nan")}, "lam must be a number >= 0, got nan"),
        ({"eps": 0.0}, "eps must be a number > 0, got 0.0"),
        ({"estimator": "pca"}, "estimator must be 'difference' or 'generalized', got 'pca'"),
        ({"keep": "largest"}, "keep must be 'invariant' or 'reference', got 'largest'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_projection(**options)


ONES = torch.ones(2, 8)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda _: InterventionMoments(0), "dim must be a positive int, got 0"),
        (
            lambda m: m.update(ONES, torch.ones(2, 7)),
            r"z and z_do must both have shape \(\.\.\., 8\)",
        ),
        (lambda m: m.update_changes(ONES, torch.ones(3, 8)), "z and changes must both have shape"),
        (lambda m: m.update(ONES, ONES, names=["a"]), "names must be one a pair, got 1 for 2"),
        (lambda m: m.merge(InterventionMoments(8, normalize=False)), r"agree .* \(8, True\)"),
        (lambda m: m.reweighted(0.0), "total must be a positive number"),
        (lambda m: m.reweighted(float("inf")), "total must be a positive number"),
        (lambda m: m.solve(3), "call update"),
        (lambda m: m.update(ONES, 2 * ONES).solve(3), "got 2 pairs for 8 .* add text pairs"),
        (
            lambda _: InterventionMoments(2).update(torch.eye(2), torch.eye(2)).solve(1),
            "change the",
        ),
        (lambda _: small_projection()(torch.ones(2, 7)), r"features must have shape \(\.\.\., 8\)"),
    ],
)
def test_wrong_calls_are_refused_with_what_came(refused, message):
    with pytest.raises(ValueError, match=message):
        refused(InterventionMoments(8))
