"""Images against texts: who is paired with whom, and the moments against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from causalclip.icm.captions import TEXT_ATTRIBUTES, CaptionedImage
from causalclip.icm.groups import Sample, grouped
from causalclip.icm.interventions import sample_seed
from causalclip.icm.pairs import cross_moments
from causalclip.icm.texts import TextPairs

D = 5


def drawn(names) -> np.ndarray:
    rows = [np.random.default_rng(sample_seed(name, 0)).normal(size=D) + 1 for name in names]
    return np.stack(rows).astype("f4")


def encode_images(paths, change=None, *, desc="") -> np.ndarray:
    return drawn(paths)


def encode_texts(captions) -> torch.Tensor:
    return torch.from_numpy(drawn(captions))


def group():
    samples = [Sample(f"/data/{i}.png", f"{i}.png", i % 2, 0) for i in range(4)]
    other = [Sample("/data/x.png", "x.png", 0, 1)]
    return grouped(samples + other, domain_names=[], seed=0)[0]


def text_pairs_of(before, captions, **options):
    return TextPairs(before, ["cat", "dog"], captions, encode_images, encode_texts, **options)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("remove_gap", [True, False])
def test_cross_moments_are_numpys(normalize, remove_gap):
    images, pairs = drawn(["a", "b", "c"]), [(0, "x"), (0, "y"), (2, "x"), (1, "z")]
    found = cross_moments(images, pairs, encode_texts, normalize=normalize, remove_gap=remove_gap)
    z = images[[i for i, _ in pairs]].astype("f8")
    t = drawn([text for _, text in pairs]).astype("f8")
    if normalize:
        z, t = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, t))
    d = z - t - ((z - t).mean(0) if remove_gap else 0)
    np.testing.assert_allclose(found.features, z.T @ z / 4, atol=1e-12)
    np.testing.assert_allclose(found.changes, d.T @ d / 4, atol=1e-12)
    assert found.n_pairs == 4


def test_without_a_gap_a_shift_of_all_texts_changes_nothing():
    images, pairs = drawn("abcdef"), [(i, text) for i in range(6) for text in "xyz"]
    options = {"normalize": False, "remove_gap": True}

    def shifted(captions):
        return encode_texts(captions) + 7

    one = cross_moments(images, pairs, encode_texts, **options)
    other = cross_moments(images, pairs, shifted, **options)
    torch.testing.assert_close(one.changes, other.changes, rtol=0, atol=1e-5)
    with_gap = cross_moments(images, pairs, shifted, normalize=False)
    assert with_gap.changes.trace() > one.changes.trace() + 100


def test_an_image_goes_with_its_own_rewrites():
    captions = [CaptionedImage("0.png", "a", ("b", "c")), CaptionedImage("x.png", "d", ("e",))]
    found = text_pairs_of("image", captions).moments(group())
    images = drawn([f"/data/{i}.png" for i in range(4)])
    expected = cross_moments(images, [(0, "b"), (0, "c")], encode_texts)
    assert found.n_pairs == 2 and torch.equal(found.changes, expected.changes)
    assert text_pairs_of("image", captions[1:]).moments(group()) is None


def test_without_captions_an_image_goes_with_its_class_in_every_attribute():
    found = text_pairs_of("image", None).moments(group())
    values = sorted({value for values in TEXT_ATTRIBUTES.values() for value in values})
    assert found.n_pairs == 4 * len(values)
    images = drawn([f"/data/{i}.png" for i in range(4)])
    names = ["cat", "dog", "cat", "dog"]
    pairs = [(i, value.format(names[i])) for i in range(4) for value in values]
    expected = cross_moments(images, pairs, encode_texts)
    torch.testing.assert_close(found.changes, expected.changes, rtol=0, atol=1e-12)


def test_captions_among_themselves_are_about_the_groups_images_or_about_the_classes():
    captions = [CaptionedImage("0.png", "a", ("b", "c")), CaptionedImage("x.png", "d", ("e",))]
    assert text_pairs_of("caption", captions).moments(group()).n_pairs == 2
    grid = text_pairs_of("caption", None)
    assert grid.moments(group()) is grid.moments(group())  # encoded once for all groups
