"""CDC's rows say what their names do, whatever the recipe's values are."""

from __future__ import annotations

import pytest

from causalclip.ablation.command import ABLATIONS
from causalclip.ablation.tables import configured, distinct
from causalclip.cdc.evidence import FUSIONS
from causalclip.errors import UserError

CDC = ABLATIONS["CDC"]
NODE = "TRAINER.CDC."
# Recipes that another choice of defaults might be.
VIEWS = ["VIEWS", "['crop', 'color_jitter', 'gray_blur', 'perspective_erasing']"]
PARTS = ["BETA", "0.2", "GAMMA", "2.0", "GAMMA_IMAGE", "3.0", "LOSS", "trusted", *VIEWS]
PARTS += ["FUSED_LOSS", "True", "FUSION", "dempster", "VISION", "coupled", "N_TEMPLATES", "4"]
SOFT = ["GAMMA_IMAGE", "0.0", "LOSS", "cross_entropy", "FUSED_LOSS", "False", "GAMMA", "0.0"]
SOFT += ["FUSION", "probabilities"]
TEXT = [*VIEWS, "VISION", "none", "GAMMA_IMAGE", "0.0", "CROP_ALL_VIEWS", "True"]
TEXT += ["DISCOUNT", "geometric"]
RECIPES = [PARTS, SOFT, TEXT]


def of_cdc(words):
    return [NODE + word if i % 2 == 0 else word for i, word in enumerate(words)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_row_of_every_table_can_be_run_on_any_recipe(recipe, planner):
    made = planner("CDC", *of_cdc(recipe))
    reference = made.reference()
    for name, table in CDC.tables.items():
        rows = made.rows(table, name, reference)  # raises for a row that its trainer would refuse
        assert len({row.variant.name for row in rows}) == len(rows)


def test_components_begin_with_every_part_off_and_end_with_the_method(planned_rows):
    rows = planned_rows("CDC", "components", *of_cdc(PARTS))
    names, pairs = list(rows), list(rows.values())
    assert names[0] == "multiple templates alone" and names[-1] == "the method"
    assert pairs[0]["LOSS"] == "cross_entropy" and pairs[0]["VIEWS"] == "['as_configured']"
    for key in ("BETA", "GAMMA", "GAMMA_IMAGE"):
        gone = [key in row for row in pairs]
        assert gone == sorted(gone, reverse=True) and gone[0] and not gone[-1]
    assert pairs[-1] == pairs[-2] == {}  # nothing is left to be switched


def test_a_part_that_the_recipe_lacks_is_switched_on_for_its_row(planned_rows):
    rows = planned_rows("CDC", "components", *of_cdc(SOFT))
    assert rows["+ L_con, texts (not in the method)"]["GAMMA"] == "5.0"
    assert rows["+ trusted loss and fusion (not in the method)"]["LOSS"] == "trusted"
    assert not [row for row in planned_rows("CDC", "components", *of_cdc(TEXT)) if "images" in row]


def test_a_weight_left_to_follow_another_counts_as_large_as_that(planned_rows):
    followed = of_cdc([*PARTS, "GAMMA_IMAGE", "None"])
    assert "+ L_con, images" in planned_rows("CDC", "components", *followed)
    none = of_cdc([*PARTS, "GAMMA_IMAGE", "None", "GAMMA", "0.0"])
    assert "+ L_con, images (not in the method)" in planned_rows("CDC", "components", *none)


def test_rows_that_are_one_method_share_their_runs(planner):
    made = planner("CDC")
    reference = made.reference()
    tables = ("fusion", "semantics", "uncertainty")
    rows = [row for name in tables for row in made.rows(CDC.tables[name], name, reference)]
    parts = ["train_base", "val_base", "val_new"]
    assert [run.part for run in distinct(rows)] == parts * 2  # two seeds
    wanted = ["S1", "S2", "S3", "S4"][: reference.settings["N_TEMPLATES"]]
    assert [row.variant.name for row in rows if row.variant.name.startswith("S")] == wanted


def test_nothing_is_trained_or_tested_on_the_test_split_unless_it_is_asked_for(planner):
    for words, split in (((), "val"), (("--split", "test"), "test")):
        made = planner("CDC", words=words)
        runs = distinct(made.rows(CDC.tables["components"], "components", made.reference()))
        splits = {run.part: configured(run).TEST.SPLIT for run in runs}
        assert splits == {"train_base": "val", f"{split}_base": split, f"{split}_new": split}


def test_the_reference_keeps_every_epoch_for_the_figures_of_epochs(planner):
    made = planner("CDC", "OPTIM.MAX_EPOCH", "3")
    rows = made.rows(CDC.tables["epochs"], "epochs", made.reference())
    runs = distinct(rows)
    assert [row.variant.epoch for row in rows] == ["1", "2", "3"]
    trainings = [run for run in runs if run.part == "train_base"]
    assert len(trainings) == 2 and len(runs) == 2 * (1 + 3 * 2)
    assert all(configured(run).TRAIN.CHECKPOINT_FREQ == 1 for run in trainings)


def test_every_fusion_rule_has_a_row(planned_rows):
    assert list(planned_rows("CDC", "fusion")) == list(FUSIONS)


@pytest.mark.parametrize(
    ("pair", "table", "said"),
    [
        (("N_TEMPLATES", "2"), "augmentations", f"{NODE}N_TEMPLATES must be at least 4, got 2"),
        (("DISCOUNT", "0.5"), "templates", f"row M = 1: {NODE}DISCOUNT must be None or"),
    ],
)
def test_a_table_that_the_settings_exclude_is_named(planned_rows, pair, table, said):
    with pytest.raises(UserError, match=f"table {table}.*{said}"):
        planned_rows("CDC", table, *of_cdc(pair))
