"""The invariant subspace: a planted answer, the published code's arithmetic, SciPy and sklearn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file
from sklearn.decomposition import TruncatedSVD

from causalclip.icm.subspace import BLOCK, DEFAULT_EPS, InterventionMoments, InvariantProjection

DIM, DIM_INV, N_PAIRS = 64, 16, 4000


@dataclasses.dataclass
class World:
    """Features z = A s and their twins with other variant factors."""

    z: torch.Tensor
    z_do: torch.Tensor
    invariant_span: np.ndarray  # all directions that no intervention can move


def planted_world(seed=0, dim=DIM, dim_inv=DIM_INV, n=N_PAIRS):
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(2))
    mixing = left @ np.diag(np.geomspace(1, 1 / 4, dim)[rng.permutation(dim)]) @ right
    factors = rng.normal(size=(n, dim)) @ rng.normal(np.eye(dim), 0.1).T
    # Class and background go together, as they do in photographs.
    factors[:, dim_inv : dim_inv + 2] += 0.6 * factors[:, :2]
    intervened = factors.copy()
    intervened[:, dim_inv:] = rng.permutation(factors[:, dim_inv:])
    return World(
        torch.from_numpy(factors @ mixing.T),
        torch.from_numpy(intervened @ mixing.T),
        scipy.linalg.null_space(mixing[:, dim_inv:].T),
    )


def moments_of(world, batch=500, **options):
    moments = InterventionMoments(world.z.shape[1], **options)
    for z, z_do in zip(world.z.split(batch), world.z_do.split(batch), strict=True):
        moments.update(z, z_do)
    return moments


def largest_angle(projection, span):
    """Largest principal angle between the kept span and another, in degrees."""
    return np.degrees(scipy.linalg.subspace_angles(projection.basis.numpy(), span).max())


def projector(projection):
    return projection.basis @ projection.basis.T


def energy_kept(basis, rows):
    """Share of the rows' squared length inside the basis's span, by projecting every row."""
    span = torch.linalg.qr(basis).Q
    return (rows @ span @ span.T).square().sum() / rows.square().sum()


def published_basis(z, z_do, lamda, dim_inv):
    """The published estimate in slow motion: sums over pairs, ascending `eigh`, first columns."""
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


# The planted answer


@pytest.mark.parametrize("seed", range(3))
def test_the_default_removes_the_interventions_and_finds_the_invariant_factors(seed):
    world = planted_world(seed)
    projection = moments_of(world).solve(DIM_INV)
    assert projection.intervention_energy_kept < 0.01
    # 22, 20 and 20 degrees: what the default eps costs; the next test takes it to its limit.
    assert largest_angle(projection, world.invariant_span) < 25


@pytest.mark.parametrize("options", [{"lam": 1000.0}, {"eps": 1e-3}])
def test_with_growing_strength_the_answer_becomes_exact_on_raw_features(options):
    world = planted_world()
    projection = moments_of(world, normalize=False).solve(DIM_INV, **options)
    assert projection.intervention_energy_kept < 1e-5
    assert largest_angle(projection, world.invariant_span) < 0.5


@pytest.mark.parametrize("options", [{"lam": 1000.0}, {"eps": 1e-3}])
def test_normalising_features_bends_the_planted_answer_a_little(options):
    # Dividing by the norm is not linear: the change is no longer in the variant factors' span.
    world = planted_world()
    projection = moments_of(world).solve(DIM_INV, **options)
    assert 0.5 < largest_angle(projection, world.invariant_span) < 6


@pytest.mark.parametrize("normalize", [True, False])
def test_lambda_of_the_default_strength_removes_the_interventions_too(normalize):
    projection = moments_of(planted_world(), normalize=normalize).solve(
        DIM_INV, estimator="difference"
    )
    assert projection.intervention_energy_kept < 0.01


@pytest.mark.parametrize("estimator", ["difference", "generalized"])
def test_the_published_end_of_the_spectrum_keeps_the_interventions(estimator):
    world = planted_world()
    moments = moments_of(world)
    ours = moments.solve(DIM_INV, estimator=estimator)
    reference = moments.solve(DIM_INV, estimator=estimator, keep="reference")
    assert reference.intervention_energy_kept > 10 * ours.intervention_energy_kept
    assert reference.intervention_energy_kept > 0.05
    assert largest_angle(reference, world.invariant_span) > 80


def test_without_the_penalty_the_interventions_stay():
    world = planted_world()
    projection = moments_of(world).solve(DIM_INV, lam=0.0)
    assert projection.intervention_energy_kept > 0.3
    assert largest_angle(projection, world.invariant_span) > 60


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


def test_lambda_zero_is_uncentred_principal_components():
    world = planted_world(dim=24, dim_inv=8, n=600)
    projection = moments_of(world, normalize=False).solve(8, lam=0.0)
    pca = TruncatedSVD(8, algorithm="arpack", random_state=0).fit(world.z.numpy())
    expected = pca.components_.T @ pca.components_
    np.testing.assert_allclose(projector(projection).numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(projection.spectrum[:8], pca.singular_values_**2 / 600)


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


def test_no_orthonormal_basis_does_better_on_the_papers_objective():
    world = planted_world(dim=24, dim_inv=8, n=600)
    z, d = world.z, world.z - world.z_do
    best = moments_of(world, normalize=False).solve(8, lam=2.0).basis

    def objective(basis):
        residual = z - z @ basis @ basis.T
        return (residual.square().sum() + 2.0 * (d @ basis).square().sum()) / 600

    generator = torch.Generator().manual_seed(0)
    for step in (1e-3, 1e-2, 1.0):
        for _ in range(20):
            noise = torch.randn(24, 8, generator=generator, dtype=torch.float64)
            assert objective(best) <= objective(torch.linalg.qr(best + step * noise).Q)


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


@pytest.mark.parametrize("options", [{"lam": 3.0}, {"eps": 0.1}])
@pytest.mark.parametrize("keep", ["invariant", "reference"])
def test_the_projector_is_idempotent_and_with_all_dimensions_the_identity(options, keep):
    moments = moments_of(planted_world(dim=24, dim_inv=8, n=600))
    some = projector(moments.solve(8, keep=keep, **options))
    torch.testing.assert_close(some @ some, some)
    every = moments.solve(24, keep=keep, **options)
    torch.testing.assert_close(projector(every), torch.eye(24).double(), rtol=0, atol=1e-10)
    assert every.intervention_energy_kept == pytest.approx(1)
    assert every.feature_energy_kept == pytest.approx(1)


def test_unscaled_eigenvectors_have_unit_length_in_the_interventions_metric():
    world = planted_world(dim=24, dim_inv=8, n=600)
    moments = moments_of(world)
    basis = moments.solve(8, orthonormal=False).basis
    metric = moments.changes + DEFAULT_EPS * moments.changes.trace() / 24 * torch.eye(24)
    torch.testing.assert_close(basis.T @ metric @ basis, torch.eye(8).double())


# Streaming


def bases(moments):
    return [moments.solve(DIM_INV, **o).basis for o in ({"lam": 1.0}, {"eps": 0.1})]


@pytest.mark.parametrize("batch", [1, 7, N_PAIRS])
def test_any_batch_size_gives_the_same_projection(batch):
    world = planted_world()
    pairs = zip(bases(moments_of(world, batch)), bases(moments_of(world)), strict=True)
    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


def test_shuffled_batches_and_merged_shards_give_the_same_projection():
    world = planted_world()
    expected = bases(moments_of(world))
    order = torch.randperm(N_PAIRS, generator=torch.Generator().manual_seed(0))
    shuffled = World(world.z[order], world.z_do[order], world.invariant_span)
    shards = [
        moments_of(World(world.z[i::3], world.z_do[i::3], world.invariant_span)) for i in range(3)
    ]
    merged = shards[2] + shards[0] + shards[1]
    assert merged.n_pairs == N_PAIRS
    for moments in (moments_of(shuffled), merged, shards[0].merge(shards[1] + shards[2])):
        for ours, wanted in zip(bases(moments), expected, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-10)


def test_single_pairs_and_extra_batch_axes_are_taken():
    world = planted_world(dim=8, dim_inv=3, n=24)
    one_by_one = InterventionMoments(8)
    for z, z_do in zip(world.z, world.z_do, strict=True):
        assert one_by_one.update(z, z_do) is one_by_one
    grid = InterventionMoments(8).update(world.z.view(4, 6, 8), world.z_do.view(4, 6, 8))
    assert one_by_one.n_pairs == grid.n_pairs == 24
    torch.testing.assert_close(one_by_one.features, grid.features)
    torch.testing.assert_close(one_by_one.changes, grid.changes)


def test_normalised_moments_are_those_of_unit_vectors():
    world = planted_world(dim=8, dim_inv=3, n=24)
    unit = World(*(z / z.norm(dim=1, keepdim=True) for z in (world.z, world.z_do)), None)
    expected = moments_of(unit, normalize=False)
    ours = moments_of(world)
    torch.testing.assert_close(ours.features, expected.features)
    torch.testing.assert_close(ours.changes, expected.changes)
    assert ours.features.trace().item() == pytest.approx(1)


def test_a_weight_counts_a_pair_as_often_and_reweighting_mixes_kinds():
    first, second = planted_world(1, n=100), planted_world(2, n=200)
    weighted = InterventionMoments(DIM).update(first.z, first.z_do, weight=3.0)
    weighted.update(second.z, second.z_do)
    repeated = InterventionMoments(DIM)
    for world in (first, first, first, second):
        repeated.update(world.z, world.z_do)
    torch.testing.assert_close(weighted.features, repeated.features)
    torch.testing.assert_close(weighted.changes, repeated.changes)
    images, texts = moments_of(first), moments_of(second)
    mixed = images.reweighted(0.7) + texts.reweighted(0.3)
    torch.testing.assert_close(mixed.changes, 0.7 * images.changes + 0.3 * texts.changes)
    assert mixed.n_pairs == 300


def test_single_precision_features_are_summed_in_double():
    world = planted_world(dim=8, dim_inv=3, n=24)
    moments = InterventionMoments(8, normalize=False).update(world.z.float(), world.z_do.float())
    assert moments.features.dtype == torch.float64
    expected = world.z.float().double()
    torch.testing.assert_close(moments.features, expected.T @ expected / 24, rtol=1e-14, atol=0)


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


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failed_save_leaves_the_previous_file_whole(step, tmp_path, monkeypatch):
    path = tmp_path / "projection.safetensors"
    small_projection().save(path)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, full_disk)
    with pytest.raises(OSError, match="No space left"):
        small_projection(2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_foreign_file_is_refused(tmp_path):
    save_file({"basis": torch.eye(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="must hold causalclip.InvariantProjection/1, got None"):
        InvariantProjection.load(tmp_path / "other.safetensors")


def test_moving_a_projection_moves_every_tensor_and_keeps_the_settings():
    projection = small_projection()
    moved = projection.to(torch.float32)
    assert moved.basis.dtype == moved.spectrum.dtype == torch.float32
    assert moved.settings == projection.settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        moved.basis = projection.basis


# Bad input


def test_fewer_pairs_than_dimensions_say_what_to_do():
    with pytest.raises(ValueError, match="got 7 pairs for 8 dimensions: .* add text pairs"):
        moments_of(planted_world(dim=8, dim_inv=3, n=7)).solve(3)
    with pytest.raises(ValueError, match="call update"):
        InterventionMoments(8).solve(3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
@pytest.mark.parametrize("side", [0, 1])
def test_unusable_features_are_named(value, side):
    pair = [torch.ones(3, 4), torch.ones(3, 4)]
    pair[side][1] = value
    with pytest.raises(ValueError, match="got 1 bad of 3 pairs, the first: dog.jpg"):
        InterventionMoments(4).update(*pair, names=["cat.jpg", "dog.jpg", "cow.jpg"])
    with pytest.raises(ValueError, match="the first: pair 1"):
        InterventionMoments(4).update(*pair)


def test_zero_features_are_fine_where_no_norm_is_taken():
    z = planted_world(dim=4, dim_inv=2, n=20).z
    moments = InterventionMoments(4, normalize=False).update(z, torch.zeros_like(z))
    torch.testing.assert_close(moments.changes, moments.features)


def test_a_refused_batch_leaves_the_moments_as_they_were():
    moments = moments_of(planted_world(dim=4, dim_inv=2, n=20))
    before = moments.features.clone()
    late = torch.ones(2 * BLOCK, 4)
    late[-1] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        moments.update(late, torch.ones_like(late))
    assert torch.equal(moments.features, before) and moments.n_pairs == 20


def test_interventions_that_change_nothing_are_refused():
    z = planted_world(dim=4, dim_inv=2, n=20).z
    with pytest.raises(ValueError, match="must change the features"):
        InterventionMoments(4).update(z, z).solve(2)


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


def test_features_and_moments_of_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="dim must be a positive int, got 0"):
        InterventionMoments(0)
    moments = InterventionMoments(8)
    for other in (torch.ones(2, 7), torch.ones(3, 8)):
        with pytest.raises(ValueError, match=r"both have shape \(\.\.\., 8\)"):
            moments.update(torch.ones(2, 8), other)
    with pytest.raises(ValueError, match=r"agree in dim and normalize, got \(8, True\)"):
        moments.merge(InterventionMoments(8, normalize=False))
    with pytest.raises(ValueError, match=r"features must have shape \(\.\.\., 8\)"):
        small_projection()(torch.ones(2, 7))
    with pytest.raises(ValueError, match="names must be one a pair, got 1 for 2"):
        moments.update(torch.ones(2, 8), torch.ones(2, 8), names=["a"])
    for weight in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="weight must be a positive number"):
            moments.update(torch.ones(2, 8), torch.ones(2, 8), weight=weight)
        with pytest.raises(ValueError, match="total must be a positive number"):
            moments.reweighted(weight)
