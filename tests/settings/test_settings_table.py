"""One table states every setting: default, allowed values, and whether it changes a result."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY

from causalclip import plugin
from causalclip.settings.check import (
    changes_results,
    check_cfg,
    check_settings,
    flatten,
    names_file,
    separates_methods,
)
from causalclip.settings.constraints import number
from causalclip.settings.table import PREC, SETTINGS, Setting

plugin.register_all()
METHODS = [
    trainer
    for trainer in plugin.registered(TRAINER_REGISTRY)
    if trainer.__module__.startswith("causalclip.")
]
ROWS = [(method, key) for method in METHODS for key in method.settings_table]
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
WRONG_OF_ALL = [(key, value) for key in SETTINGS for value in (NAN, {"A": 1}, [{}])]


@pytest.fixture
def cfg():
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.MODEL.BACKBONE.NAME = "tiny"
    return cfg


def check(method, cfg) -> None:
    """The check as a trainer's constructor runs it, before anything is built."""
    object.__new__(method).check_cfg(cfg)


@pytest.mark.parametrize("method", METHODS)
def test_every_default_is_allowed(method, cfg):
    check(method, cfg)


def test_every_key_of_a_configuration_has_a_row_and_no_row_is_of_another(cfg):
    keys = {key for key, _ in flatten(cfg)}
    nodes = {f"TRAINER.{method.config_node}.{key}" for method, key in ROWS}
    of_dassl = {f"TRAINER.{node}" for node in get_cfg_default().TRAINER}  # of its own methods
    ours = {key for key in keys if key.rpartition(".")[0] not in of_dassl}
    assert ours == SETTINGS.keys() | nodes


@pytest.mark.parametrize("method", METHODS)
def test_every_wrong_value_of_every_setting_of_a_method_is_named(method, cfg):
    node = cfg.TRAINER[method.config_node]
    for key, setting in method.settings_table.items():
        for value in WRONG[type(setting.default)]:
            if value is None and setting.allowed.words.startswith("None or "):
                continue
            node[key] = value
            name = re.escape(f"TRAINER.{method.config_node}.{key} must be ")
            with pytest.raises(ValueError, match=rf"^{name}.*, got {re.escape(repr(value))}"):
                check(method, cfg)
        node[key] = setting.default


def test_every_wrong_value_of_a_setting_of_all_methods_is_named():
    for key, value in WRONG_OF_ALL:
        words = f"{key} must be {SETTINGS[key].allowed.words}, got {value!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            check_settings({key: value}, SETTINGS, where="")


def test_every_trainer_checks_them(make_trainer, tmp_path):
    for name in ("ZeroshotCLIP", "CoOp"):
        with pytest.raises(ValueError, match=r"TEST.SPLIT must be one of test, val, got 'nonsense"):
            make_trainer(name, tmp_path, "TEST.SPLIT", "nonsense")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("CDC.VIEWS", [], "a list of 1 or more, each one of flip_crop, "),
        ("CDC.DISCOUNT", 0.1, "None or geometric, fit or a number in [0.25, 1]"),
        ("CLIP_ICM.GRID_DIMS", [0.5, 1.5], "a list of 1 or more, each a number in (0, 1]"),
        ("PROGRAD.TEMPLATE", "a photo", "text with one {}, or empty"),
    ],
)
def test_a_wrong_setting_of_a_method_is_refused_with_what_is_allowed(key, value, allowed, cfg):
    node, name = key.split(".")
    (method,) = (method for method in METHODS if method.config_node == node)
    cfg.TRAINER[node][name] = value
    message = re.escape(f"TRAINER.{key} must be {allowed}")
    with pytest.raises(ValueError, match=f"^{message}.*got {re.escape(repr(value))}$"):
        check(method, cfg)


def test_a_shared_key_is_checked_in_a_method_that_only_names_it(cfg):
    cfg.TRAINER.COOP.PREC = "fp8"
    with pytest.raises(ValueError, match="TRAINER.COOP.PREC must be one of fp32, fp16, bf16, amp"):
        check_cfg(cfg, "COOP", {})


def test_a_configuration_without_our_settings_names_the_line_that_was_forgotten():
    with pytest.raises(ValueError, match=r"no TRAINER.CDC: call causalclip.plugin.extend_cfg\(cfg"):
        check_cfg(get_cfg_default(), "CDC", {})


def test_a_key_that_is_not_set_is_not_checked_and_the_first_wrong_one_is_named_with_its_place():
    rows = {"LR": Setting(0.1, number(0, open_low=True), "Rate."), "PREC": PREC}
    check_settings({}, rows, where="OPTIM.")
    with pytest.raises(ValueError, match=r"^OPTIM\.LR must be a finite number > 0, got -1$"):
        check_settings({"LR": -1, "PREC": "fp8"}, rows, where="OPTIM.")


# What counts


def test_every_row_helps_and_what_does_not_count_has_a_reason():
    rows = [*SETTINGS.values(), *(method.settings_table[key] for method, key in ROWS)]
    for row in rows:
        assert row.help.strip()
        assert row.neutral == row.neutral.strip() and row.shared == row.shared.strip()
        assert not (row.neutral and row.shared), "runs that are the same are rows of one method"


def test_what_changes_a_result_and_what_separates_methods():
    counted = {"SEED", "OPTIM.LR", "DATASET.NAME", "TRAINER.CDC.BETA", "A.NEW.KEY"}
    assert all(map(changes_results, counted))
    assert not any(map(changes_results, ("OUTPUT_DIR", "DATALOADER.NUM_WORKERS", "VERBOSE")))
    separating = {key for key in counted if separates_methods(key)}
    assert separating == {"OPTIM.LR", "TRAINER.CDC.BETA", "A.NEW.KEY"}


def test_the_keys_that_may_name_a_file():
    assert {key for key in SETTINGS if names_file(key)} == {
        "DATASET.DESCRIPTIONS",
        "MODEL.BACKBONE.NAME",
        "MODEL.INIT_WEIGHTS",
    }
    of_methods = {key for method, key in ROWS if method.settings_table[key].names_file}
    assert of_methods == {"PROJECTION", "CAPTIONS"}
    assert all(names_file(f"TRAINER.ANY.{key}") for key in of_methods)
