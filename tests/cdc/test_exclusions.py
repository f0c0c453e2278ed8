"""causalclip/cdc/exclusions.py: settings that do not go together are named before any work."""

from __future__ import annotations

import re

import pytest

from causalclip.cdc.exclusions import excluded
from causalclip.trainers.cdc import CDC


def complaints(**settings):
    return list(excluded({**CDC.defaults, **settings}))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"DISCOUNT": 0.4, "N_TEMPLATES": 2}, r"DISCOUNT must be .* in \[0.5, 1\], got 0.4"),
        ({"LOSS": "cross_entropy", "KL_WEIGHT": 0.1}, "KL_WEIGHT must be 0 .*, got 0.1"),
        ({"FUSION": "logits"}, "FUSED_LOSS must be False .* FUSION is logits, .*"),
        ({"FUSION": "probabilities"}, "FUSED_LOSS must be False .* is probabilities, .*"),
        ({"VISION": "none", "GAMMA_IMAGE": 1.0}, "GAMMA_IMAGE must be 0 .* none, got 1.0"),
        ({"VISION": "none", "BETA_IMAGE": 0.2}, "BETA_IMAGE must be 0 .* none, got 0.2"),
        (
            {"VIEWS": ["as_configured"], "CROP_ALL_VIEWS": True},
            "CROP_ALL_VIEWS must be False .*, got True",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_named(settings, complaint):
    (found,) = complaints(**settings)
    assert re.fullmatch(complaint, found), found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"DISCOUNT": 0.25},
        {"DISCOUNT": "geometric", "N_TEMPLATES": 1},
        {"DISCOUNT": "fit"},
        {"FUSION": "logits", "FUSED_LOSS": False},
        {"FUSION": "logits", "LOSS": "cross_entropy"},
        {"VISION": "none"},
        {"VIEWS": ["as_configured"], "CROP_ALL_VIEWS": False},
        {"N_TEMPLATES": 1},
    ],
)
def test_settings_that_suit_each_other_pass(settings):
    assert complaints(**settings) == []
