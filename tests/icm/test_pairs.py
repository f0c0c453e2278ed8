"""Moments of interventional pairs against NumPy."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from causalclip.icm.interventions import ImageIntervention
from causalclip.icm.pairs import Draw, Intervened, cross_moments, text_moments
from causalclip.seeding import sample_seed

D = 4


def drawn(names) -> np.ndarray:
    rows = [np.random.default_rng(sample_seed(name, 0)).normal(size=D) + 1 for name in names]
    return np.stack(rows).astype("f4")


def encode_texts(captions) -> torch.Tensor:
    return torch.from_numpy(drawn(captions))


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype("f8")
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def check(moments, z: np.ndarray, d: np.ndarray) -> None:
    np.testing.assert_allclose(moments.features, z.T @ z / len(z), atol=1e-12)
    np.testing.assert_allclose(moments.changes, d.T @ d / len(d), atol=1e-12)
    assert moments.n_pairs == len(d)


NAMES = list("abcdef")
Z, CHANGED = drawn(NAMES), [drawn(f"{name} {i}" for name in NAMES) for i in range(3)]


def test_a_draw_changes_a_picture_by_its_own_key_and_travels_to_a_worker():
    picture = Image.effect_noise((16, 16), 64).convert("RGB")
    draw = Draw(ImageIntervention(), seed=5)
    expected = ImageIntervention()(picture, sample_seed("a.png", 5))
    assert draw(picture, "a.png") == expected
    assert pickle.loads(pickle.dumps(draw))(picture, "a.png") == expected


def test_moments_of_images_are_those_of_all_draws():
    z = np.concatenate([unit(Z)] * 3)
    check(Intervened(Z, CHANGED, NAMES).moments(), z, z - np.concatenate(list(map(unit, CHANGED))))


def test_draws_against_draws_are_every_two_of_an_image_and_its_own_features():
    one, two, three = map(unit, CHANGED)
    d = np.concatenate([one - two, one - three, two - three])
    check(Intervened(Z, CHANGED, NAMES, "draws").moments(), np.concatenate([unit(Z)] * 3), d)


@pytest.mark.parametrize("against", ["image", "draws"])
def test_some_images_moments_are_those_of_these_images_alone(against):
    rows = np.array([4, 0, 0])
    some = Intervened(Z, CHANGED, NAMES, against).moments(rows)
    apart = Intervened(Z[rows], [c[rows] for c in CHANGED], list("eaa"), against).moments()
    assert torch.equal(some.changes, apart.changes)
    assert torch.equal(some.features, apart.features)


def test_unusable_features_name_their_image():
    z = Z.copy()
    z[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 bad of 6 pairs, the first: b"):
        Intervened(z, CHANGED, NAMES).moments()


def test_each_caption_is_encoded_once(monkeypatch):
    monkeypatch.setattr("causalclip.icm.pairs.ROWS_AT_ONCE", 2)
    pairs, seen = [("a", "b"), ("b", "a"), ("a", "c"), ("c", "d"), ("d", "a")], []

    def encode(captions):
        seen.extend(captions)
        return encode_texts(captions)

    moments = text_moments(pairs, encode)
    assert seen == ["a", "b", "c", "d"]
    before, after = (unit(drawn([pair[side] for pair in pairs])) for side in (0, 1))
    check(moments, before, before - after)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("remove_gap", [True, False])
def test_images_against_texts(normalize, remove_gap):
    pairs = [(0, "x"), (0, "y"), (2, "x"), (1, "z")]
    moments = cross_moments(Z, pairs, encode_texts, normalize=normalize, remove_gap=remove_gap)
    z, t = Z[[i for i, _ in pairs]].astype("f8"), drawn([text for _, text in pairs]).astype("f8")
    if normalize:
        z, t = unit(z), unit(t)
    check(moments, z, z - t - ((z - t).mean(0) if remove_gap else 0))
