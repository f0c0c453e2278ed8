"""Recipes: every rule names a file, and what is said of methods is what their trainers say."""

from __future__ import annotations

import pytest
from dassl.engine import TRAINER_REGISTRY

from causalclip import plugin
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import (
    CLASS_BOUND,
    CONFIGS,
    RULES,
    Context,
    few_shot_settings,
    methods,
    recipe,
)


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_recipe_is_a_file(method, protocol):
    for dataset in ("imagenet", "caltech101", "handwritten_digits"):
        for shots in ("1", "2", "16"):
            file = recipe(method, protocol, dataset, shots)
            assert (CONFIGS / "trainers" / method / f"{file}.yaml").is_file()


def test_every_rule_is_reached_by_some_run():
    reached = {
        next(rule for rule in RULES if rule.fits(method, protocol, dataset, shots))
        for method in {rule.method for rule in RULES}
        for protocol in PROTOCOLS
        for dataset in ("imagenet", "caltech101")
        for shots in ("1", "2", "16")
    }
    assert reached == set(RULES)


def test_the_methods_that_know_no_other_classes_are_those_whose_trainers_say_so():
    plugin.register_all()
    bound = {name for name in methods() if not TRAINER_REGISTRY.get(name).knows_other_classes}
    assert bound == {name for name, key in CLASS_BOUND.items() if not key}


@pytest.mark.parametrize("value", [True, False])
def test_a_key_that_binds_a_method_to_its_classes_is_the_one_its_trainer_reads(
    make_trainer, tmp_path, value
):
    for method, key in CLASS_BOUND.items():
        if key:
            assert make_trainer(method, tmp_path, key, value).class_bound == value


def test_prograd_projects_less_with_many_images_of_three_data_sets():
    less = ("TRAINER.PROGRAD.LAMBDA", "0.8")
    expected = {("dtd", "8"): less, ("dtd", "4"): (), ("caltech101", "16"): ()}
    for cell, settings in expected.items():
        assert few_shot_settings("ProGrad", *cell, Context()) == settings
