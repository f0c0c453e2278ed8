"""CDC's settings that exclude each other, each named in backticks, and its views."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from PIL import Image

from causalclip.cdc.config import FAMILIES, CDCConfig, family_view


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discount": 0.4, "n_templates": 2}, r"`discount` must be .* in \[0.5, 1\], got 0.4"),
        ({"loss": "cross_entropy", "kl_weight": 0.1}, "`kl_weight` must be 0 .*, got 0.1"),
        ({"fusion": "logits"}, "`fused_loss` must be False .* `fusion` is logits, .*"),
        ({"vision": "none", "gamma_image": 1.0}, "`gamma_image` must be 0 .* none, got 1.0"),
        (
            {"crop_all_views": True, "views": ("as_configured",)},
            "`crop_all_views` must be False .* as_configured.*, got True",
        ),
        ({"anchors": ("a {}.",)}, "`anchors` must be empty or one for each .* 4, got 1"),
        ({"anchors": ("a {}.", "b"), "n_templates": 2}, "`anchors` must each hold one {}, got 'b'"),
        ({"loss": "base"}, "`base` must name a prompt method where `loss` is base, got ''"),
    ],
)
def test_settings_that_exclude_each_other_are_named(settings, message):
    with pytest.raises(ValueError) as refused:
        CDCConfig(**settings)
    assert re.fullmatch(message, str(refused.value))


def test_weights_of_the_images_follow_the_texts_unless_given_and_need_image_prompts():
    assert CDCConfig(beta=0.5, gamma=3.0, gamma_image=None).image_weights == (0.5, 3.0)
    assert CDCConfig(beta_image=0.0, gamma_image=2.0).image_weights == (0.0, 2.0)
    assert CDCConfig(vision="none").image_weights == (0.0, 0.0)


# -- views: the picture that a template sees, against the transform of test pictures --------------


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
