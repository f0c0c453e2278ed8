"""A test beside its training: what may differ, and what makes another method of it."""

from __future__ import annotations

import json

import pytest

from causalclip.records.identity import Identity, write_run
from causalclip.runs.run_folder import check_folder, check_tested

TRAINED = {"INPUT.TRANSFORMS": ["random_flip", "normalize"], "SEED": 1}


@pytest.fixture
def compared(tmp_path):
    """Compare a test of these settings with the training."""
    write_run(tmp_path, Identity(TRAINED), {})
    return lambda **settings: check_tested(tmp_path, Identity({**TRAINED, **settings}))


def test_images_that_are_normalised_in_one_of_both_only_are_refused(compared):
    with pytest.raises(ValueError, match="another method: INPUT.TRANSFORMS"):
        compared(**{"INPUT.TRANSFORMS": ["random_flip"]})


def test_other_augmentations_of_the_training_images_are_not_mentioned_and_a_seed_is(compared):
    assert compared(**{"INPUT.TRANSFORMS": ["normalize"]}) == ""
    assert "SEED is 1 there, 2 here" in compared(SEED=2)


def test_a_folder_that_has_lost_its_run_file_is_compared_by_its_result(tmp_path):
    settings = {"OPTIM": {"LR": 0.5}, "SEED": 1}
    (tmp_path / "results.json").write_text(json.dumps({"metrics": {}, "config": settings}))
    mine = {"OPTIM.LR": 0.5, "SEED": 1, "TEST.SPLIT": "test"}  # and a default
    check_folder(tmp_path, Identity(mine))
    with pytest.raises(ValueError, match="holds another run: SEED is 1 there, 2 here"):
        check_folder(tmp_path, Identity({**mine, "SEED": 2}))
