"""What may stand in a setting is said beside its default, and checked for every trainer and key."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from causalclip import plugin
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.settings import (
    Either,
    Flag,
    ListOf,
    Maybe,
    Number,
    OneOf,
    Text,
    Whole,
    check_settings,
)

# isort: split
from dassl.config import get_cfg_default

plugin.register_all()
METHODS = [
    trainer
    for trainer in plugin.registered(TRAINER_REGISTRY)
    if issubclass(trainer, CLIPTrainer) and trainer.__module__.startswith("causalclip.")
]
KEYS = [(method, key) for method in METHODS for key in method.defaults]
NAN, INFINITE = math.nan, math.inf

# By the type of the default: values of another type, not finite, or far out of any range.
WRONG: dict[type, list[Any]] = {
    bool: [2, "maybe", None, [True]],
    int: ["many", 1.5, NAN, [1], True, None, -5, 10**12],
    float: ["much", NAN, INFINITE, [1.0], True, None, -1e30],
    str: [7, NAN, ["words"], None, True],
    list: [3, "word", NAN, None, [NAN], [{}]],
    type(None): ["much", NAN, INFINITE, [1.0], True, -1e30],  # None or a number
}


def configured(method: type[CLIPTrainer], **settings: Any) -> CfgNode:
    """The defaults of a method with some settings put in unchecked."""
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.MODEL.BACKBONE.NAME = "tiny"
    for key, value in settings.items():
        cfg.TRAINER[method.config_node][key] = value
    return cfg


def check(method: type[CLIPTrainer], cfg: CfgNode) -> None:
    """The check as the trainer's constructor runs it, before anything is built."""
    object.__new__(method).check_cfg(cfg)


@pytest.mark.parametrize("method", METHODS)
def test_the_defaults_of_a_method_are_allowed(method):
    check(method, configured(method))


@pytest.mark.parametrize(("method", "key"), KEYS)
def test_every_wrong_value_of_every_setting_is_named(method, key):
    for value in WRONG[type(method.defaults[key])]:
        name = re.escape(f"TRAINER.{method.config_node}.{key} must be ")
        with pytest.raises(ValueError, match=rf"^{name}.*, got {re.escape(repr(value))}"):
            check(method, configured(method, **{key: value}))


@pytest.mark.parametrize("method", METHODS)
def test_no_constraint_is_of_a_setting_that_is_not_there(method):
    assert set(method.constraints) <= set(method.defaults)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("FUSION", "foo", "one of discounted, dempster, averaging, probabilities, logits"),
        ("EVIDENCE", "tanh", "one of exp, softplus, relu"),
        ("BETA", -5, "a finite number >= 0"),
        ("INIT_NOISE", -1, "a finite number >= 0"),
        ("GAMMA", NAN, "a finite number >= 0"),
        ("N_TEMPLATES", 10**12, "an int in [1, 100]"),
        ("N_TEMPLATES", [4], "an int in [1, 100]"),
        ("VIEWS", [], "a list of 1 or more, each one of flip_crop, "),
        ("DISCOUNT", 0.1, "None or geometric, fit or a number in [0.25, 1]"),
        ("DISCOUNT", 1.5, "None or one of fit, geometric or a number in (0, 1]"),
    ],
)
def test_cdc_says_what_may_stand_there(key, value, allowed):
    method = TRAINER_REGISTRY.get("CDC")
    message = re.escape(f"TRAINER.CDC.{key} must be {allowed}")
    with pytest.raises(ValueError, match=f"^{message}.*got {re.escape(repr(value))}$"):
        check(method, configured(method, **{key: value}))


def test_a_method_without_constraints_runs_unchecked_but_for_what_all_share():
    class Plain(CLIPTrainer):
        config_node = "PLAIN"
        defaults = {"ANYTHING": 1, "PREC": "fp32"}

    cfg = get_cfg_default()
    cfg.MODEL.BACKBONE.NAME = "tiny"
    cfg.TRAINER.PLAIN = CfgNode({"ANYTHING": "goes", "PREC": "fp32"})
    check(Plain, cfg)
    cfg.TRAINER.PLAIN.PREC = "fp8"
    with pytest.raises(ValueError, match="TRAINER.PLAIN.PREC must be one of fp32, fp16, bf16, amp"):
        check(Plain, cfg)


@pytest.mark.parametrize(
    ("constraint", "allowed", "refused"),
    [
        (OneOf(("a", "b")), ["a", "b"], ["c", "", None, ["a"], 0]),
        (Whole(), [1, 10**9], [0, -1, 1.0, True, "1", NAN]),
        (Whole(0, 3), [0, 3], [-1, 4]),
        (Number(), [-1, 2.5, 0, 10**400], [NAN, INFINITE, -INFINITE, "1", True, [1]]),
        (Number(0, 1), [0, 1, 0.5], [-1e-9, 1.001]),
        (Number(0, 1, open_low=True, open_high=True), [0.5], [0, 1, 0.0, 1.0]),
        (Flag(), [True, False], [0, 1, "True", None]),
        (Text(), ["", "any"], [None, 1, ["any"]]),
        (Text(holding="{}"), ["", "a {}."], ["a cat", "{} {}", 3]),
        (ListOf(Number(0)), [[1], (2.0, 3)], [[], [-1], ["a"], 1, "ab", None]),
        (ListOf(Whole(), least=0), [[], [1]], [[0]]),
        (Maybe(Whole()), [None, 1], [0, "None"]),
        (Either(OneOf(("a",)), Number(0, 1)), ["a", 0.5, 1], ["b", 2, None, ["a"]]),
    ],
)
def test_a_constraint_allows_what_it_says(constraint, allowed, refused):
    assert [value for value in allowed if not constraint.allows(value)] == []
    assert [value for value in refused if constraint.allows(value)] == []


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Whole(), "a positive int"),
        (Whole(0), "an int of at least 0"),
        (Whole(2, 5), "an int in [2, 5]"),
        (Number(), "a finite number"),
        (Number(0), "a finite number >= 0"),
        (Number(0, open_low=True), "a finite number > 0"),
        (Number(0, 1, open_low=True), "a number in (0, 1]"),
        (Number(high=1), "a finite number <= 1"),
        (Number(high=1, open_high=True), "a finite number < 1"),
        (Maybe(Flag()), "None or True or False"),
        (ListOf(Whole(), least=2), "a list of 2 or more, each a positive int"),
        (Text(holding="{}"), "text with one {}, or empty"),
    ],
)
def test_a_constraint_says_what_it_allows(constraint, words):
    assert constraint.words == words


def test_the_first_setting_that_does_not_fit_is_named_with_its_place():
    with pytest.raises(ValueError, match=r"^OPTIM\.LR must be a finite number > 0, got -1$"):
        check_settings({"LR": -1}, {"LR": Number(0, open_low=True)}, where="OPTIM")


def test_a_constraint_of_a_key_that_is_not_set_is_not_asked():
    check_settings({}, {"LR": Number(0)}, where="OPTIM")
