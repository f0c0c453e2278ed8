"""Draws, pairs, folds, texts and exact twins of the training images, as configured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from causalclip.icm.captions import TEXT_ATTRIBUTES, CaptionedImage
from causalclip.icm.config import ICMConfig
from causalclip.icm.folds import Fold, Sources, pooled
from causalclip.icm.groups import Sample
from causalclip.icm.pairs import Draw, cross_moments
from causalclip.icm.subspace import InterventionMoments
from causalclip.seeding import sample_seed

D = 3
PATHS = [f"{i}.png" for i in range(6)]
BASE = ICMConfig(kinds=("invert", "blur"), draws=2, normalize=False)
TWINS = {path: f"twin of {path}" for path in PATHS}
CAPTIONS = [CaptionedImage("0.png", "a", ("b", "c")), CaptionedImage("5.png", "d", ("e",))]


def drawn(names) -> np.ndarray:
    rows = [np.random.default_rng(sample_seed(name, 0)).normal(size=D) for name in names]
    return np.stack(rows).astype("f4")


class EncodeImages:
    """Features that depend on the file and the change; records the requested changes."""

    def __init__(self) -> None:
        self.changes: list[Draw | None] = []

    def __call__(self, paths, change: Draw | None = None, *, desc: str = "") -> np.ndarray:
        self.changes.append(change)
        return drawn(paths if change is None else [f"{path} {change.seed}" for path in paths])


def encode_texts(texts) -> torch.Tensor:
    return torch.from_numpy(drawn(texts))


def sources(twin_of=None, captions=None, *, domains=2, seed=5, dim=D, **settings) -> Sources:
    samples = [Sample(path, path, i % 2, domains * i // 6) for i, path in enumerate(PATHS)]
    return Sources(
        replace(BASE, **settings),
        samples,
        ["ink", "chalk"],
        ["cat", "dog"],
        encode_images=EncodeImages(),
        encode_texts=encode_texts,
        dim=dim,
        seed=seed,
        twins=twin_of,
        captions=captions,
    )


# -- images --------------------------------------------------------------------------------------


def test_draws_are_as_set_or_enough_for_four_pairs_a_dimension_and_twins_are_one():
    assert sources().draws == 2
    assert [sources(draws=0, dim=dim).draws for dim in (1, 3, 32)] == [1, 2, 22]
    assert sources(draws=0, against="draws").draws == 3
    assert sources(TWINS, twins=True).draws == 1


def test_kinds_and_their_strength_and_the_other_of_a_pair_are_those_of_the_config():
    run = sources(strength=2.0, kinds=("invert", "blur", "blur"), against="draws", draws=3)
    for group in run.groups:
        assert group.intervention.kinds == ("invert", "blur")
        assert group.intervention.params.blur_sigma == (0.2, 4.0)
    fold = run.folds()[0]
    one, two, three = map(torch.from_numpy, run.changed(run.groups[0]))
    d = torch.cat([one - two, one - three, two - three]).double()
    torch.testing.assert_close(fold.moments.changes, d.T @ d / 9, rtol=1e-6, atol=1e-6)


def test_draws_have_seeds_of_their_own_in_every_run():
    seeds = []
    for seed in (0, 1, 2):
        run = sources(seed=seed)
        run.changed(run.groups[0])
        seeds += [change.seed for change in run.encode_images.changes]
    assert seeds == list(range(6))


def test_a_fold_is_a_domain_with_the_moments_of_its_own_pairs():
    ink, chalk = sources().folds()
    assert (ink.name, chalk.name) == ("ink", "chalk")
    for fold, paths in ((ink, PATHS[:3]), (chalk, PATHS[3:])):
        z = drawn(paths).astype("f8")
        d = np.concatenate([z - drawn([f"{path} {10 + i}" for path in paths]) for i in (0, 1)])
        np.testing.assert_allclose(fold.moments.changes, d.T @ d / 6, atol=1e-6)
        assert fold.texts is None and fold.moments.n_pairs == 6


@pytest.mark.parametrize("domains", [1, 2])
@pytest.mark.parametrize("kind", ["IMAGE", "TEXT"])
def test_a_fold_encodes_what_it_needs_and_holds_out_changed_pictures_of_a_single_domain(
    domains, kind
):
    run = sources(domains=domains, interventions=kind)
    fold = run.folds()[0]
    paths = run.groups[0].paths
    changed = [f"{path} 10" for path in paths]
    np.testing.assert_array_equal(fold.features, drawn(paths))
    np.testing.assert_array_equal(fold.held_features, drawn(changed if domains == 1 else paths))
    assert fold.labels.tolist() == [int(path[0]) % 2 for path in paths]
    per_group = 3 if kind == "IMAGE" or domains == 1 else 1
    assert len(run.encode_images.changes) == per_group * len(run.groups)


def test_exact_moments_are_of_all_images_with_their_twins_and_none_without():
    assert sources().exact_moments() is None
    d = drawn(PATHS).astype("f8") - drawn(TWINS.values())
    exact = sources(TWINS).exact_moments()
    np.testing.assert_allclose(exact.changes, d.T @ d / 6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "fixed"}, r"`dim_inv` must be in \[1, 3\], got 0"),
        ({"select": "fixed", "dim_inv": 4}, r"`dim_inv` must be in \[1, 3\], got 4"),
        ({"twins": True}, "`twins` needs a data set with exact twins"),
        ({"dim": 7, "draws": 1}, "6 images and 1 intervention each give 6 pairs for 7 dimensions"),
        ({"dim": 20, "draws": 3, "against": "draws"}, "3 interventions each give 18 pairs for 20"),
        ({"dim": 7, "draws": 1, "interventions": "BOTH", "probe_texts": False}, "6 pairs for 7"),
        ({"bootstrap": 10}, "`bootstrap` needs at least 20 images, got 6"),
        (
            {"select_new": "classes", "class_folds": 2},
            "`class_folds` must hold out two classes .*: 2 training classes .* 1 groups, got 2",
        ),
    ],
)
def test_settings_that_the_data_cannot_fulfil_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sources(**options).check()
    sources(dim=7, draws=1, interventions="BOTH").check()  # texts are pairs as well


# -- texts ---------------------------------------------------------------------------------------


def test_an_image_is_paired_with_its_own_rewrites():
    run = sources(captions=CAPTIONS, interventions="CROSS")
    found, other = (fold.texts for fold in run.folds())
    pairs = [(0, "b"), (0, "c")]
    expected = cross_moments(drawn(PATHS[:3]), pairs, encode_texts, normalize=False)
    assert found.n_pairs == 2 and torch.equal(found.changes, expected.changes)
    assert other.n_pairs == 1
    assert sources(captions=CAPTIONS[:1], interventions="CROSS").folds()[1].texts is None


def test_without_captions_an_image_is_paired_with_its_class_in_every_attribute():
    run = sources(interventions="CROSS")
    values = sorted({value for values in TEXT_ATTRIBUTES.values() for value in values})
    pairs = [(i, v.format(name)) for i, name in enumerate(("cat", "dog", "cat")) for v in values]
    expected = cross_moments(drawn(PATHS[:3]), pairs, encode_texts, normalize=False)
    found = run.folds()[0].texts
    torch.testing.assert_close(found.changes, expected.changes, rtol=0, atol=1e-12)


def test_captions_among_themselves_are_about_the_groups_images_or_about_the_classes():
    run = sources(captions=CAPTIONS, interventions="TEXT")
    assert [fold.texts.n_pairs for fold in run.folds()] == [2, 1]
    ink, chalk = sources(interventions="TEXT").folds()
    assert ink.texts is chalk.texts  # encoded once


# -- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["IMAGE", "CROSS", "FIGURE"])
@pytest.mark.parametrize("held", ["images", "classes"])
def test_parts_of_the_images_have_the_moments_of_the_whole_and_encode_it_once(held, kind):
    run = sources(domains=1, interventions=kind, select="images", class_folds=2)
    folds = run.folds() if held == "images" else run.class_folds()
    assert run.encode_images.changes.count(None) == 1
    assert sorted(torch.cat([fold.features for fold in folds]).tolist()) == sorted(
        drawn(PATHS).tolist()
    )
    for fold in folds:
        assert torch.equal(fold.features, fold.held_features)
        rows = [drawn(PATHS).tolist().index(row) for row in fold.features.tolist()]
        assert fold.labels.tolist() == [row % 2 for row in rows]
    whole = sources(domains=1, interventions=kind, select="images")
    (everything,) = whole._parts([range(6)])
    torch.testing.assert_close(pooled(folds).changes, pooled([everything]).changes)
    classes = [set(fold.labels.tolist()) for fold in folds]
    assert classes == ([{0, 1}, {0, 1}, {0}, {1}] if held == "images" else [{0}, {1}])


# -- pooling -------------------------------------------------------------------------------------


def test_pooled_folds_weigh_texts_as_set_whatever_their_number():
    generator = torch.Generator().manual_seed(0)
    z, z_do, t, t_do = (torch.randn(n, D, generator=generator) for n in (9, 9, 5, 5))
    images, texts = InterventionMoments(D).update(z, z_do), InterventionMoments(D).update(t, t_do)
    both = [Fold(name, images, texts, z, z[:, 0] > 0, z) for name in "ab"]
    expected = 0.75 * images.changes + 0.25 * texts.changes
    changes = pooled(both, text_weight=0.25).changes
    torch.testing.assert_close(changes, expected, rtol=0, atol=1e-12)
    texts_only = [replace(fold, moments=None) for fold in both]
    torch.testing.assert_close(pooled(texts_only).changes, texts.changes, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"text_weight must be in \(0, 1\), got 1"):
        pooled(both, text_weight=1)
    with pytest.raises(ValueError, match="image or text pairs, got neither"):
        pooled([replace(fold, texts=None) for fold in texts_only])
