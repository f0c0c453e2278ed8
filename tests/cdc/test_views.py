"""The view of a picture that a template sees, against the transform of test pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from PIL import Image

from causalclip.cdc.config import FAMILIES, family_view

SIZE, MEAN, STD = (32, 32), [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def picture(width: int, height: int) -> Image.Image:
    """A gradient along both axes, so that squashing and cutting differ everywhere."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8))


def as_tested():
    """Dassl's own transform of a test picture."""
    cfg = get_cfg_default()
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = SIZE, "bicubic"
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = MEAN, STD
    cfg.INPUT.TRANSFORMS = ("normalize",)
    return build_transform(cfg, is_train=False)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (48, 48), (32, 32)])
def test_a_view_without_augmentation_is_what_the_test_shows(shape):
    view = family_view("plain", SIZE, mean=MEAN, std=STD)
    image = picture(*shape)
    assert torch.equal(view(image), as_tested()(image))


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("crop_all", [False, True])
def test_every_family_gives_the_networks_size(family, crop_all):
    view = family_view(family, SIZE, mean=MEAN, std=STD, crop_all=crop_all)
    assert view(picture(60, 40)).shape == (3, *SIZE)


def test_an_unknown_family_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="must be one of .*color_jitter.*, got 'colour'"):
        family_view("colour", SIZE, mean=MEAN, std=STD)
