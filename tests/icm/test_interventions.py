"""Image interventions: what must change does, what must not does not, runs repeat."""

from __future__ import annotations

import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from causalclip.icm.interventions import (
    IMAGE_KINDS,
    ImageIntervention,
    ImageInterventionParams,
    sample_seed,
)


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


class Photos(Dataset):
    """What a data set does with the transform: the seed comes from the sample's own key."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        twin = ImageIntervention()(photo(index), sample_seed(f"{index}.jpg", 7))
        return torch.from_numpy(pixels(twin).copy())


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


def test_jitter_stays_within_its_strengths():
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    params = ImageInterventionParams(brightness=0.2, contrast=0, saturation=0, hue=0)
    jitter = ImageIntervention(params, ("jitter",))
    twins = [pixels(jitter(grey, seed))[0, 0, 0] for seed in range(50)]
    assert 80 <= min(twins) < 90 and 110 < max(twins) <= 120


def test_the_result_depends_on_the_image_and_the_seed_alone():
    image, intervene = photo(), ImageIntervention()
    torch.manual_seed(0)
    random.seed(0)
    first = [pixels(intervene(image, seed)) for seed in range(20)]
    state = torch.get_rng_state(), random.getstate()
    again = [pixels(pickle.loads(pickle.dumps(intervene))(image, seed)) for seed in range(20)]
    assert all(map(np.array_equal, first, again))
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]


def test_the_number_of_workers_changes_nothing():
    alone, two = (list(DataLoader(Photos(), num_workers=n)) for n in (0, 2))
    assert all(map(torch.equal, alone, two))


def test_a_samples_seed_is_stable_and_depends_on_key_and_seed():
    seeds = {sample_seed(key, seed) for key in ("a.jpg", "b.jpg", "1a.jpg") for seed in (0, 1, 11)}
    assert len(seeds) == 9
    # printf '1\0a.jpg' | sha256sum | cut -c1-16
    assert sample_seed("a.jpg", 1) == 0x8B978FCB1820E3C5


def test_kinds_are_drawn_uniformly():
    image = photo()
    fixed = {
        kind: pixels(ImageIntervention(kinds=(kind,))(image, 0)).tobytes()
        for kind in ("grayscale", "invert", "posterize", "solarize", "equalize")
    }
    twins = Counter(
        pixels(ImageIntervention()(image, sample_seed(str(i), 0))).tobytes() for i in range(1400)
    )
    for kind, twin in fixed.items():
        # Binomial with mean 200 and deviation 13; five of them.
        assert abs(twins[twin] - 200) < 65, kind


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


def test_kinds_that_cannot_change_the_image_are_an_error():
    with pytest.raises(ValueError, match="none of grayscale does: got a 40x32 image in mode L"):
        ImageIntervention(kinds=("grayscale",))(photo().convert("L"), 0)


def test_unknown_kinds_and_strengths_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"kinds must be some of jitter, .*, got \['rotate'\]"):
        ImageIntervention(kinds=("rotate",))
    with pytest.raises(ValueError, match=r"kinds must be some of .* got \[\]"):
        ImageIntervention(kinds=())
    for options, message in (
        ({"hue": 0.6}, r"hue must be in \[0, 0.5\], got 0.6"),
        ({"brightness": -0.1}, r"brightness must be in \[0, 1\], got -0.1"),
        ({"posterize_bits": 0}, r"posterize_bits must be in \[1, 8\], got 0"),
        ({"solarize_threshold": 256}, r"solarize_threshold must be in \[0, 255\]"),
        ({"blur_sigma": (2.0, 1.0)}, "blur_sigma must be 0 < low <= high"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageInterventionParams(**options)


def test_strength_scales_what_has_one_and_one_changes_nothing():
    params = ImageInterventionParams()
    assert params.scaled(1.0) == params and repr(params.scaled(1.0)) == repr(params)
    twice, mild = params.scaled(2.0), params.scaled(0.25)
    assert (twice.brightness, twice.hue, twice.blur_sigma) == (0.8, 0.2, (0.2, 4.0))
    assert (twice.posterize_bits, twice.solarize_threshold) == (1, 0)  # 8 bits off: one stays
    assert (mild.posterize_bits, mild.solarize_threshold) == (7, 224)
    assert params.scaled(4.0).brightness == 1 and params.scaled(4.0).hue == 0.4
    with pytest.raises(ValueError, match="strength must be a positive number, got 0"):
        params.scaled(0)


def test_a_weaker_intervention_changes_a_picture_less():
    picture = Image.effect_noise((32, 32), 64).convert("RGB")

    def moved(kind: str, strength: float) -> float:
        change = ImageIntervention(ImageInterventionParams().scaled(strength), (kind,))
        changed = [np.asarray(change(picture, seed), dtype=float) for seed in range(20)]
        return float(np.abs(np.stack(changed) - np.asarray(picture, dtype=float)).mean())

    for kind in ("jitter", "blur", "posterize", "solarize"):
        assert moved(kind, 0.4) < moved(kind, 1.0) < moved(kind, 1.8), kind
