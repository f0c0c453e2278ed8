"""A test beside its training: what may differ, and what makes another method of it."""

from __future__ import annotations

import pytest

from causalclip.runs.identity import Identity, Recorded, write_run
from causalclip.runs.tested_model import check_tested

TRAINED = {"INPUT.TRANSFORMS": ["random_flip", "normalize"], "SEED": 1}


@pytest.fixture
def compared(tmp_path):
    """Compare a test of these settings with the training."""
    write_run(tmp_path, Recorded(Identity({}), TRAINED), {})
    return lambda **settings: check_tested(
        tmp_path, Recorded(Identity({}), {**TRAINED, **settings})
    )


def test_images_that_are_normalised_in_one_of_both_only_are_refused(compared):
    with pytest.raises(ValueError, match="another method: INPUT.TRANSFORMS"):
        compared(**{"INPUT.TRANSFORMS": ["random_flip"]})


def test_other_augmentations_of_the_training_images_are_not_mentioned_and_a_seed_is(compared):
    assert compared(**{"INPUT.TRANSFORMS": ["normalize"]}) == ""
    assert "SEED is 1 there, 2 here" in compared(SEED=2)
