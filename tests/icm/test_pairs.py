"""Interventional pairs: who is compared with whom, and moments against NumPy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from causalclip.icm.folds import fold_of
from causalclip.icm.groups import Group, Sample
from causalclip.icm.interventions import ImageIntervention, sample_seed
from causalclip.icm.pairs import (
    Draw,
    Drawn,
    Intervened,
    Twins,
    draws_needed,
    image_moments,
    pairs_an_image,
    text_moments,
)

DIM = 4


class Asked:
    """An encoder that notes what it is asked for; features depend on file and change."""

    def __init__(self) -> None:
        self.changes: list[Draw | None] = []

    def __call__(self, paths, change=None, *, desc="") -> np.ndarray:
        self.changes.append(change)
        rows = [sample_seed(f"{path} {change}", 0) % 2**32 for path in paths]
        return np.stack([np.random.default_rng(row).normal(size=DIM) for row in rows]).astype("f4")


def group(n: int = 6, *, held_changed: bool = False) -> Group:
    items = tuple(Sample(f"{i}.png", f"{i}.png", i % 2, 0) for i in range(n))
    return Group("ink", items, ImageIntervention(kinds=("invert",)), held_changed)


def second_moments(z: np.ndarray, z_do: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z, z_do = (a.astype("f8") for a in (z, z_do))
    z, z_do = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, z_do))
    return z.T @ z / len(z), (z - z_do).T @ (z - z_do) / len(z)


def test_draws_have_seeds_of_their_own_in_every_run():
    encode = Asked()
    for seed in (0, 1, 2):
        Drawn(encode, draws=3, seed=seed).changed(group())
    assert [change.seed for change in encode.changes if change] == list(range(9))


def test_a_draw_changes_a_picture_by_its_own_key_and_travels_to_a_worker():
    picture = Image.effect_noise((16, 16), 64).convert("RGB")
    draw = Draw(ImageIntervention(), seed=5)
    expected = ImageIntervention()(picture, sample_seed("a.png", 5))
    assert draw(picture, "a.png") == expected
    assert pickle.loads(pickle.dumps(draw))(picture, "a.png") == expected


def test_twins_are_the_files_that_the_data_set_names():
    encode = Asked()
    names = {f"{i}.png": f"{i}.twin.png" for i in range(6)}
    (changed,) = Twins(encode, names).changed(group())
    np.testing.assert_array_equal(changed, encode(list(names.values())))


def test_draws_give_four_pairs_a_dimension():
    assert [draws_needed(n, 32) for n in (20, 128, 129, 1)] == [7, 1, 1, 128]


def test_moments_of_images_are_those_of_all_draws():
    encode, images = Asked(), group()
    z = encode(images.paths)
    changed = Drawn(encode, draws=2, seed=0).changed(images)
    moments = image_moments(z, changed, images.paths)
    features, changes = second_moments(np.concatenate([z, z]), np.concatenate(changed))
    np.testing.assert_allclose(moments.features, features, atol=1e-12)
    np.testing.assert_allclose(moments.changes, changes, atol=1e-12)
    assert moments.n_pairs == 12


def test_draws_against_draws_are_every_two_of_an_image_around_the_image_itself():
    encode, images = Asked(), group()
    z = encode(images.paths)
    changed = Drawn(encode, draws=3, seed=0).changed(images)
    moments = Intervened(z, changed, images.paths, "draws").moments()
    rows = np.stack([z, *changed]).astype("f8")
    z, one, two, three = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    d = np.concatenate([one - two, one - three, two - three])
    np.testing.assert_allclose(moments.features, z.T @ z / 6, atol=1e-12)
    np.testing.assert_allclose(moments.changes, d.T @ d / 18, atol=1e-12)
    assert moments.n_pairs == 6 * pairs_an_image(3, "draws") == 18
    assert all(pairs_an_image(draws_needed(n, 32, "draws"), "draws") * n >= 128 for n in (9, 500))
    with pytest.raises(ValueError, match="two draws an image or more, got 1"):
        Intervened(encode(images.paths), changed[:1], images.paths, "draws").moments()


def test_some_images_moments_are_those_of_these_images_alone():
    encode, images = Asked(), group()
    z, changed = encode(images.paths), Drawn(encode, draws=2, seed=0).changed(images)
    rows = np.array([4, 0, 0])
    for against in ("image", "draws"):
        some = Intervened(z, changed, images.paths, against).moments(rows)
        apart = Intervened(z[rows], [c[rows] for c in changed], list("abc"), against).moments()
        assert torch.equal(some.changes, apart.changes)
        assert torch.equal(some.features, apart.features)


def test_unusable_features_name_their_image():
    z = np.ones((3, DIM), "f4")
    z[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 bad of 3 pairs, the first: b.png"):
        image_moments(z, [np.ones((3, DIM), "f4")], ["a.png", "b.png", "c.png"])


def test_each_caption_is_encoded_once(monkeypatch):
    monkeypatch.setattr("causalclip.icm.pairs.TEXTS_AT_ONCE", 2)
    pairs = [("a", "b"), ("b", "a"), ("a", "c"), ("c", "d"), ("d", "a")]
    encode, seen = Asked(), []

    def texts(captions):
        seen.extend(captions)
        return torch.from_numpy(encode(captions))

    moments = text_moments(pairs, texts)
    assert seen == ["a", "b", "c", "d"]
    before, after = (encode([pair[side] for pair in pairs]) for side in (0, 1))
    features, changes = second_moments(before, after)
    np.testing.assert_allclose(moments.features, features, atol=1e-12)
    np.testing.assert_allclose(moments.changes, changes, atol=1e-12)


@pytest.mark.parametrize("held_changed", [False, True])
@pytest.mark.parametrize("images", [False, True])
def test_a_fold_encodes_what_is_read_and_holds_out_what_it_is_to(held_changed, images):
    encode, part = Asked(), group(held_changed=held_changed)
    fold = fold_of(part, encode, Drawn(encode, draws=2, seed=0), images=images)
    assert len(encode.changes) == (3 if images or held_changed else 1)
    change = Draw(part.intervention, 0) if held_changed else None
    np.testing.assert_array_equal(fold.features, encode(part.paths))
    np.testing.assert_array_equal(fold.held_features, encode(part.paths, change))
    assert fold.labels.tolist() == fold.held_labels.tolist() == [0, 1] * 3
    assert (fold.moments is None) != images
