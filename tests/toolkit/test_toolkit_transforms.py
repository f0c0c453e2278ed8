"""The eighteen transforms: their order, lines, settings and random draws."""

from __future__ import annotations

import random
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
from dassl.config import get_cfg_default
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.data.transforms.transforms import AVAI_CHOICES
from PIL import Image

TRAIN_LINES = """\
Building transform_train
+ random translation
+ random crop (padding = 4)
+ random resized crop (size=(24, 32), scale=(0.08, 1.0))
+ random flip
+ imagenet policy
+ cifar10 policy
+ svhn policy
+ randaugment (n=2, m=10)
+ randaugment_fixmatch (n=2)
+ randaugment2 (n=2)
+ color jitter (brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
+ random gray scale
+ gaussian blur (kernel=21)
+ to torch tensor of range [0, 1]
+ cutout (n_holes=1, length=16)
+ normalization (mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
+ gaussian noise (mean=0.0, std=0.15)
+ instance normalization
"""
TEST_LINES = """\
Building transform_test
+ resize the smaller edge to 32
+ 24x32 center crop
+ to torch tensor of range [0, 1]
+ normalization (mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
+ instance normalization
"""


@pytest.fixture(autouse=True)
def numpy_int(monkeypatch):
    """The name that Dassl's policies use."""
    monkeypatch.setattr(np, "int", int, raising=False)


def build(choices, *, is_train=True, **options):
    """The transform for 24x32 images, and the lines that building it printed."""
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (24, 32)
    cfg.INPUT.TRANSFORMS = tuple(choices)
    for key, value in options.items():
        cfg.INPUT[key] = value
    with redirect_stdout(StringIO()) as printed:
        transform = build_transform(cfg, is_train=is_train)
    return transform, printed.getvalue()


def picture(width=40, height=30):
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def test_the_order_is_fixed_whatever_order_they_are_chosen_in():
    assert len(AVAI_CHOICES) == 18
    shuffled = sorted(AVAI_CHOICES, key=lambda name: name[::-1])
    assert build(shuffled)[1] == TRAIN_LINES
    assert build(shuffled, is_train=False)[1] == TEST_LINES


def test_without_a_crop_the_image_is_resized_to_the_exact_size():
    transform, printed = build(["random_flip"])
    assert "+ resize to 24x32\n" in printed
    assert transform(picture()).shape == (3, 24, 32)


@pytest.mark.parametrize("choice", sorted(AVAI_CHOICES))
def test_each_choice_gives_a_training_tensor_of_the_right_size(choice):
    transform, _ = build([choice])
    for _ in range(10):
        image = transform(picture())
        assert image.shape == (3, 24, 32) and torch.isfinite(image).all()


def test_the_test_transform_keeps_the_aspect_ratio_and_crops_the_centre():
    gradient = np.tile(np.arange(100, dtype=np.uint8), (50, 1))[..., None].repeat(3, 2)
    transform, _ = build([], is_train=False)
    image = transform(Image.fromarray(gradient))[0] * 255  # 50x100 -> 32x64 -> 24x32
    assert image.shape == (24, 32)
    assert abs(float(image[:, 15:17].mean()) - 49.5) < 1
    assert float(image[0, -1] - image[0, 0]) == pytest.approx(31 * 100 / 64, abs=2)


def test_normalisation_by_the_configuration_and_by_instance():
    gray = Image.new("RGB", (32, 24), (51, 102, 204))  # 0.2, 0.4, 0.8
    transform, _ = build(["normalize"], PIXEL_MEAN=[0.1, 0.2, 0.3], PIXEL_STD=[0.1, 0.2, 0.5])
    assert transform(gray).mean((1, 2)).tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-5)
    image = build(["instance_norm"])[0](picture())
    assert image.mean((1, 2)).abs().max() < 1e-6
    assert torch.allclose(image.std((1, 2)), torch.ones(3))


def test_cutout_blanks_one_square_that_may_cross_the_border():
    transform, _ = build(["cutout"], CUTOUT_LEN=10)
    areas = set()
    for _ in range(50):
        blank = (transform(Image.new("RGB", (32, 24), (255, 255, 255))) == 0).all(0)
        rows, columns = blank.any(1).sum().item(), blank.any(0).sum().item()
        assert blank.sum() == rows * columns and 5 <= rows <= 10 and 5 <= columns <= 10
        areas.add(rows * columns)
    assert max(areas) == 100 and len(areas) > 1


@pytest.mark.parametrize("choice", ["randaugment", "randaugment2", "randaugment_fixmatch"])
def test_randaugment_applies_n_operations(choice):
    plain = build([])[0](picture())
    transform, _ = build([choice], RANDAUGMENT_N=0)
    assert torch.equal(transform(picture()), plain)
    transform, _ = build([choice], RANDAUGMENT_N=3)
    assert any(not torch.equal(transform(picture()), plain) for _ in range(20))


@pytest.mark.minidassl
def test_the_settings_of_randaugment_are_used():
    def unchanged(choice, **options):
        transform, _ = build([choice], RANDAUGMENT_N=1, **options)
        torch.manual_seed(1), random.seed(1)
        return np.mean([torch.equal(transform(picture()), plain) for _ in range(300)])

    plain = build([])[0](picture())
    # 14 operations of which one is the identity; at magnitude 0 most are
    assert unchanged("randaugment", RANDAUGMENT_M=0) > 0.5
    assert unchanged("randaugment", RANDAUGMENT_M=30) < 0.2
    assert unchanged("randaugment2") > 0.4 > 0.25 > unchanged("randaugment_fixmatch")
    with pytest.raises(ValueError, match="RANDAUGMENT_M must be from 0 to 30, got 31"):
        build(["randaugment"], RANDAUGMENT_M=31)


def test_no_transform_leaves_images_alone():
    transform, printed = build(["normalize"], NO_TRANSFORM=True)
    assert transform is None and printed == "Note: no transform is applied!\n"


@pytest.mark.minidassl
def test_unknown_choices_and_interpolations_come_with_the_nearest_known_ones():
    assert set(INTERPOLATION_MODES) == {"bilinear", "bicubic", "nearest"}
    with pytest.raises(ValueError, match="transform .*did you mean 'random_flip'"):
        build(["random_flop"])
    with pytest.raises(ValueError, match="interpolation .*did you mean 'bicubic'"):
        build(["random_flip"], INTERPOLATION="bicubc")


# What Python's, NumPy's and torch's generators draw next after 50 images, all seeded with 1;
# made by Dassl 0.6.3. Equal numbers mean equal consumption: the images after it agree as well.
NEXT_DRAWS = [
    ("random_translation", 0.561358, 0.417022, 0.757632),
    ("cutout", 0.134364, 0.956536, 0.757632),
    ("gaussian_noise", 0.303369, 0.417022, 0.911065),
    ("random_crop", 0.134364, 0.417022, 0.957941),
    ("random_resized_crop", 0.134364, 0.417022, 0.246461),
    ("random_flip", 0.134364, 0.417022, 0.019306),
]


@pytest.mark.parametrize(("choice", "python", "numpy", "tensor"), NEXT_DRAWS)
def test_random_numbers_are_drawn_as_dassl_draws_them(choice, python, numpy, tensor):
    transform, _ = build([choice])
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    for _ in range(50):
        transform(picture())
    drawn = [random.random(), np.random.rand(), float(torch.rand(1))]
    assert drawn == pytest.approx([python, numpy, tensor], abs=1e-6)
