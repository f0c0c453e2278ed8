"""CLIP-ICM's settings that exclude each other are refused, each named in backticks."""

from __future__ import annotations

import pytest

from causalclip.icm.config import ICMConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"against": "draws", "draws": 1},
            "`against` draws needs `draws` 0 or above 1 .* got 1, False",
        ),
        ({"class_folds": 1}, "`class_folds` must be 0 or at least 2, got 1"),
        ({"remove_gap": True}, "`remove_gap` needs `interventions` CROSS or FIGURE, got IMAGE"),
        ({"bootstrap": 9, "interventions": "TEXT"}, "`bootstrap` needs image pairs, .* got TEXT"),
        (
            {"head": "linear_probe", "probe": False},
            "`head` linear_probe needs `probe` True, got False",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ICMConfig(**settings)


def test_the_probe_leaves_texts_out_where_there_are_image_pairs_and_it_is_asked_to():
    for kind, texts_alone in (("FIGURE", False), ("BOTH", False), ("TEXT", True), ("CROSS", True)):
        config = ICMConfig(interventions=kind, probe_texts=False)
        assert config.uses_texts("zeroshot")
        assert config.uses_texts("linear_probe") == texts_alone
        assert ICMConfig(interventions=kind).uses_texts("linear_probe")
