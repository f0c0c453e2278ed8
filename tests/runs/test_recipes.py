"""Recipes: every rule names a file and is reached."""

from __future__ import annotations

import pytest

from causalclip import plugin
from causalclip.errors import UserError
from causalclip.runs.configuration import merge_file
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import CONFIGS, choose_recipe, methods, names, recipes_of

DATASETS = ("imagenet", "caltech101", "handwritten_digits")
SHOTS = ("1", "2", "16")


@pytest.mark.parametrize("method", methods())
def test_every_recipe_is_a_file(method):
    configs = {
        recipes_of(method).config(protocol, dataset, shots, tuned=tuned)
        for tuned in {False, bool(recipes_of(method).tuned)}
        for protocol in PROTOCOLS
        for dataset in DATASETS
        for shots in SHOTS
    }
    assert all((CONFIGS / "trainers" / method / f"{name}.yaml").is_file() for name in configs)


@pytest.mark.parametrize("method", methods())
def test_every_rule_is_reached_by_some_run(method):
    cells = [(p, d, s) for p in PROTOCOLS for d in DATASETS[:2] for s in SHOTS]
    for rules in (recipes_of(method).rules, recipes_of(method).tuned):
        first = [next((n for n, rule in enumerate(rules) if rule.fits(*c)), None) for c in cells]
        assert set(first) - {None} == set(range(len(rules)))


IMAGENET = ("xd", "imagenet", "16")
DIGITS = ("base2new", "handwritten_digits", "16")


@pytest.mark.parametrize(
    ("method", "asked", "cell", "options", "name"),
    [
        ("CDC", "", DIGITS, {"bundled": True}, "tiny_m4"),
        ("CDC", "published", DIGITS, {"bundled": True}, "tiny_m4_published"),
        ("CDC", "published", DIGITS, {"model": "tiny-coloured"}, "tiny_m4_published"),
        ("CDC", "tuned", DIGITS, {"bundled": True}, "tiny_m4"),
        ("CDC", "", DIGITS, {}, "vit_b16_m4"),
        ("CDC", "published", IMAGENET, {"model": "ViT-L/14"}, "vit_b16_m4_cross_datasets"),
        ("CDC", "tuned", IMAGENET, {"model": "ViT-L/14"}, "vit_b16_m4_cross_datasets_tuned"),
        ("CDC", "tuned", DIGITS, {}, "vit_b16_m4_tuned"),
        ("CLIP_ICM", "published", DIGITS, {"bundled": True}, "tiny_published"),
        ("CLIP_ICM", "tuned", DIGITS, {}, "vit_b16_tuned"),
        ("CoOp", "published", DIGITS, {"bundled": True}, "tiny"),  # compared on one CLIP
        ("CoOp", "tuned", DIGITS, {"bundled": True}, "tiny"),
    ],
)
def test_the_published_and_the_tuned_reading_have_a_name(method, asked, cell, options, name):
    assert choose_recipe(method, asked, cell, **options).name == name


def test_a_method_without_a_tuned_reading_refuses_it():
    with pytest.raises(UserError, match="unknown recipe tuned of CoOp; known: tiny published vit"):
        choose_recipe("CoOp", "tuned", DIGITS)


def test_the_defaults_of_the_code_are_the_published_reading():
    """The other settings below the node are a backbone's: depth and precision."""
    plugin.register_all()
    for method, tuned in (("CDC", "tiny_m4"), ("CLIP_ICM", "tiny")):
        defaults = plugin.default_cfg().TRAINER[method]
        of = {name: plugin.default_cfg() for name in (*names(f"trainers/{method}"),)}
        for name, cfg in of.items():
            merge_file(cfg, str(CONFIGS / "trainers" / method / f"{name}.yaml"))
            node = cfg.TRAINER[method]
            changed = {key for key in node if node[key] != defaults[key]}
            published = changed <= {"PROMPT_DEPTH", "PREC", "VIEWS"}
            assert published == (name != tuned and not name.endswith("_tuned")), name


def test_prograd_projects_less_with_many_images_of_three_data_sets():
    less = ("TRAINER.PROGRAD.LAMBDA", "0.8")
    expected = {("dtd", "8"): less, ("dtd", "4"): (), ("caltech101", "16"): ()}
    for cell, settings in expected.items():
        assert recipes_of("ProGrad").extra_settings("fewshot", *cell) == settings


def test_settings_are_added_to_the_recipes_that_they_name():
    settings_of = recipes_of("CLIP_ICM").extra_settings
    tuned = ("TRAINER.CLIP_ICM.SELECT", "images", "TRAINER.CLIP_ICM.SELECT_NEW", "combined")
    assert [settings_of("base2new", "dtd", "16", name) for name in ("tiny", "vit_b16_tuned")] == [
        tuned, tuned
    ]  # fmt: skip
    assert settings_of("base2new", "dtd", "16", "tiny_published") == ()
    assert settings_of("lodo", "dtd", "all", "tiny") == ()
