"""Image interventions: what must change does, what must not does not, runs repeat."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from causalclip.icm.interventions import IMAGE_KINDS, ImageIntervention, ImageInterventionParams
from causalclip.seeding import sample_seed


def photo(seed=0, size=(40, 32)):
    """A smooth colourful image with some noise, like a small photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=int)
    noisy = smooth + rng.integers(-10, 10, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def pixels(image):
    return np.asarray(image)


def same(first, second):
    return np.array_equal(pixels(first), pixels(second))


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_every_kind_changes_the_image_and_nothing_of_its_format(kind):
    image = photo()
    before = pixels(image).copy()
    for seed in range(10):
        twin = ImageIntervention(kinds=(kind,))(image, seed)
        assert twin.mode == "RGB" and twin.size == image.size
        assert not same(twin, image)
    assert np.array_equal(pixels(image), before)


def test_the_fixed_kinds_are_pillows_operations():
    image = photo()
    expected = {
        "grayscale": image.convert("L").convert("RGB"),
        "invert": ImageOps.invert(image),
        "posterize": ImageOps.posterize(image, 4),
        "solarize": ImageOps.solarize(image, 128),
        "equalize": ImageOps.equalize(image),
    }
    for kind, wanted in expected.items():
        assert same(ImageIntervention(kinds=(kind,))(image, 0), wanted)


def test_blur_smooths_and_its_kernel_grows_with_the_image():
    params = ImageInterventionParams(blur_sigma=(50.0, 50.0))
    for side, kernel in ((32, 3), (224, 23), (448, 45)):
        # A huge sigma makes the kernel a box, so a bright line becomes as wide as the kernel.
        line = np.zeros((side, side, 3), dtype=np.uint8)
        line[:, side // 2] = 255
        blurred = ImageIntervention(params, ("blur",))(Image.fromarray(line), 0)
        assert (pixels(blurred)[side // 2, :, 0] > 0).sum() == kernel


def test_a_tiny_image_can_be_blurred():
    checker = np.indices((2, 2)).sum(0)[..., None] % 2 * np.full(3, 255)
    image = Image.fromarray(checker.astype(np.uint8))
    assert not same(ImageIntervention(kinds=("blur",))(image, 3), image)


def test_the_result_depends_on_the_image_and_the_seed_alone():
    image, intervene = photo(), ImageIntervention()
    torch.manual_seed(0)
    random.seed(0)
    first = [pixels(intervene(image, seed)) for seed in range(20)]
    state = torch.get_rng_state(), random.getstate()
    again = [pixels(pickle.loads(pickle.dumps(intervene))(image, seed)) for seed in range(20)]
    assert all(map(np.array_equal, first, again))
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]


def test_a_samples_seed_is_stable_and_depends_on_key_and_seed():
    seeds = {sample_seed(key, seed) for key in ("a.jpg", "b.jpg", "1a.jpg") for seed in (0, 1, 11)}
    assert len(seeds) == 9
    # printf '1\0a.jpg' | sha256sum | cut -c1-16
    assert sample_seed("a.jpg", 1) == 0x8B978FCB1820E3C5


@pytest.mark.parametrize(
    "image",
    [
        photo().convert("L"),
        Image.new("RGB", (16, 16), (0, 0, 0)),
        Image.new("RGB", (16, 16), (255, 255, 255)),
        Image.new("RGB", (16, 16), (240, 16, 16)),
        photo().convert("RGBA"),
        Image.new("1", (16, 16), 1),
    ],
    ids=["grey photo", "black", "white", "one colour", "alpha", "bilevel"],
)
def test_no_draw_is_the_identity_even_where_most_kinds_do_nothing(image):
    for seed in range(60):
        assert not same(ImageIntervention()(image, seed), image.convert("RGB"))


def test_a_null_draw_of_the_parameters_is_drawn_again(monkeypatch):
    # A blur of sigma 0.1 changes no pixel.
    params = ImageInterventionParams(blur_sigma=(0.1, 0.5))
    image, intervene = photo(), ImageIntervention(params, ("blur",))
    assert not any(same(intervene(image, seed), image) for seed in range(30))
    with monkeypatch.context() as patch:
        patch.setattr("causalclip.icm.interventions.N_ROUNDS", 1)
        with pytest.raises(ValueError, match="none of blur does"):
            [intervene(image, seed) for seed in range(30)]
    null = ImageIntervention(ImageInterventionParams(blur_sigma=(0.1, 0.1)), ("blur",))
    with pytest.raises(ValueError, match="none of blur does: got a 40x32 image in mode RGB"):
        null(image, 0)


@pytest.mark.parametrize("kinds", [("rotate",), ()])
def test_unknown_kinds_are_refused(kinds):
    with pytest.raises(ValueError, match="kinds must be some of jitter, .*, got"):
        ImageIntervention(kinds=kinds)


def test_strength_scales_what_has_one_and_one_changes_nothing():
    params = ImageInterventionParams()
    assert params.scaled(1.0) == params and repr(params.scaled(1.0)) == repr(params)
    twice, mild = params.scaled(2.0), params.scaled(0.25)
    assert (twice.brightness, twice.hue, twice.blur_sigma) == (0.8, 0.2, (0.2, 4.0))
    assert (twice.posterize_bits, twice.solarize_threshold) == (1, 0)  # 8 bits off: one stays
    assert (mild.posterize_bits, mild.solarize_threshold) == (7, 224)
    assert params.scaled(4.0).brightness == 1 and params.scaled(4.0).hue == 0.4
