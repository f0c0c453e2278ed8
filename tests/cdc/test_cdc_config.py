"""CDC's settings that exclude each other are refused, each named in backticks."""

from __future__ import annotations

import re

import pytest

from causalclip.cdc.config import CDCConfig


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
