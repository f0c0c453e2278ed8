"""Defaults, merging and freezing of the configuration, against the documented values."""

from __future__ import annotations

import pytest
from dassl.config import clean_cfg, get_cfg_default
from yacs.config import CfgNode

IMAGENET = {"PIXEL_MEAN": [0.485, 0.456, 0.406], "PIXEL_STD": [0.229, 0.224, 0.225]}
LOADER = {"SAMPLER": "RandomSampler", "BATCH_SIZE": 32}
WARM_UP = {"WARMUP_EPOCH": -1, "WARMUP_TYPE": "linear", "WARMUP_RECOUNT": True}
WARM_UP |= {"WARMUP_CONS_LR": 1e-5, "WARMUP_MIN_LR": 1e-5}
SCHEDULE = {"LR_SCHEDULER": "single_step", "STEPSIZE": (-1,), "GAMMA": 0.1, "MAX_EPOCH": 10}
DOCUMENTED = {
    "": {"SEED": -1, "USE_CUDA": True, "RESUME": "", "VERBOSE": True},
    "INPUT": {"SIZE": (224, 224), "INTERPOLATION": "bilinear", **IMAGENET}
    | {"TRANSFORMS": (), "NO_TRANSFORM": False, "RRCROP_SCALE": (0.08, 1.0)},
    "DATASET": {"NUM_SHOTS": -1, "SOURCE_DOMAINS": ()},
    "DATALOADER": {"NUM_WORKERS": 4, "K_TRANSFORMS": 1, "RETURN_IMG0": False},
    "DATALOADER.TRAIN_X": LOADER,
    "DATALOADER.TRAIN_U": {**LOADER, "SAME_AS_X": True},
    "DATALOADER.TEST": {**LOADER, "SAMPLER": "SequentialSampler"},
    "MODEL": {"INIT_WEIGHTS": ""},
    "OPTIM": {"NAME": "adam", "LR": 3e-4, "WEIGHT_DECAY": 5e-4, "MOMENTUM": 0.9}
    | {"SGD_NESTEROV": False, **SCHEDULE, **WARM_UP},
    "TRAIN": {"CHECKPOINT_FREQ": 0, "PRINT_FREQ": 10, "COUNT_ITER": "train_x"},
    "TEST": {"EVALUATOR": "Classification", "SPLIT": "test", "FINAL_MODEL": "last_step"}
    | {"NO_TEST": False, "PER_CLASS_RESULT": False, "COMPUTE_CMAT": False},
}


@pytest.mark.parametrize("path", DOCUMENTED)
def test_defaults_are_the_documented_ones(path):
    node = get_cfg_default()
    for part in filter(None, path.split(".")):
        node = node[part]
    expected = DOCUMENTED[path]
    actual = {key: node[key] for key in expected}
    assert actual == expected
    assert list(map(type, actual.values())) == list(map(type, expected.values()))


def test_each_call_gives_its_own_configuration():
    get_cfg_default().SEED = 7
    get_cfg_default().INPUT.PIXEL_MEAN.append(1.0)
    assert get_cfg_default().SEED == -1
    assert len(get_cfg_default().INPUT.PIXEL_MEAN) == 3


def test_lists_and_tuples_convert_and_yaml_exponents_are_numbers(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("INPUT:\n  SIZE: (32, 48)\n  TRANSFORMS: [normalize]\nOPTIM:\n  LR: 1e-5\n")
    cfg = get_cfg_default()
    cfg.merge_from_file(str(recipe))
    assert (cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS) == ((32, 48), ("normalize",))
    assert cfg.OPTIM.LR == 1e-5


def test_types_are_strict_and_frozen_configurations_immutable():
    cfg = get_cfg_default()
    with pytest.raises(ValueError, match="Type mismatch.*OPTIM.LR"):
        cfg.merge_from_list(["OPTIM.LR", 1])
    cfg.freeze()
    with pytest.raises(AttributeError, match="immutable"):
        cfg.SEED = 1


def test_an_unknown_key_on_the_command_line_is_refused():
    with pytest.raises(AssertionError, match="Non-existent key: OPTIM.MAX_EPOCHS"):
        get_cfg_default().merge_from_list(["OPTIM.MAX_EPOCHS", 3])


@pytest.mark.minidassl
def test_an_unknown_key_is_answered_with_the_nearest_known_keys(tmp_path):
    with pytest.raises(AssertionError, match="did you mean 'OPTIM.MAX_EPOCH'"):
        get_cfg_default().merge_from_list(["OPTIM.MAX_EPOCHS", 3])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("DATALOADER:\n  NUM_WORKER: 2\n")
    with pytest.raises(KeyError, match="did you mean 'DATALOADER.NUM_WORKERS'"):
        get_cfg_default().merge_from_file(str(recipe))


@pytest.mark.minidassl
def test_a_trainer_whose_settings_nobody_added_names_the_line_that_was_forgotten(tmp_path):
    file = tmp_path / "cdc.yaml"
    file.write_text("TRAINER:\n  CDC:\n    BETA: 0.1\n")
    with pytest.raises(KeyError, match=r"TRAINER.CDC; .*causalclip.plugin.extend_cfg\(cfg\)"):
        get_cfg_default().merge_from_file(str(file))


def test_trainer_nodes_of_plain_yacs_can_be_added_merged_and_cleaned():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 16})
    cfg.merge_from_list(["TRAINER.COOP.N_CTX", "4"])
    assert cfg.clone().TRAINER.COOP.N_CTX == 4
    clean_cfg(cfg, "CoOp")
    assert set(cfg.TRAINER) == {"NAME", "COOP"}
