"""Defaults, merging and freezing of the configuration, against the documented values."""

from __future__ import annotations

import pytest
from dassl.config import clean_cfg, get_cfg_default
from yacs.config import CfgNode

DOCUMENTED = {
    "SEED": -1,
    "USE_CUDA": True,
    "RESUME": "",
    "VERBOSE": True,
    "INPUT.SIZE": (224, 224),
    "INPUT.INTERPOLATION": "bilinear",
    "INPUT.PIXEL_MEAN": [0.485, 0.456, 0.406],
    "INPUT.PIXEL_STD": [0.229, 0.224, 0.225],
    "INPUT.TRANSFORMS": (),
    "INPUT.NO_TRANSFORM": False,
    "INPUT.RRCROP_SCALE": (0.08, 1.0),
    "DATASET.NUM_SHOTS": -1,
    "DATASET.SOURCE_DOMAINS": (),
    "DATALOADER.NUM_WORKERS": 4,
    "DATALOADER.K_TRANSFORMS": 1,
    "DATALOADER.RETURN_IMG0": False,
    "DATALOADER.TRAIN_X.SAMPLER": "RandomSampler",
    "DATALOADER.TRAIN_X.BATCH_SIZE": 32,
    "DATALOADER.TRAIN_U.SAME_AS_X": True,
    "DATALOADER.TEST.SAMPLER": "SequentialSampler",
    "DATALOADER.TEST.BATCH_SIZE": 32,
    "MODEL.INIT_WEIGHTS": "",
    "OPTIM.NAME": "adam",
    "OPTIM.LR": 3e-4,
    "OPTIM.WEIGHT_DECAY": 5e-4,
    "OPTIM.MOMENTUM": 0.9,
    "OPTIM.SGD_NESTEROV": False,
    "OPTIM.LR_SCHEDULER": "single_step",
    "OPTIM.STEPSIZE": (-1,),
    "OPTIM.GAMMA": 0.1,
    "OPTIM.MAX_EPOCH": 10,
    "OPTIM.WARMUP_EPOCH": -1,
    "OPTIM.WARMUP_TYPE": "linear",
    "OPTIM.WARMUP_CONS_LR": 1e-5,
    "OPTIM.WARMUP_MIN_LR": 1e-5,
    "OPTIM.WARMUP_RECOUNT": True,
    "TRAIN.CHECKPOINT_FREQ": 0,
    "TRAIN.PRINT_FREQ": 10,
    "TRAIN.COUNT_ITER": "train_x",
    "TEST.EVALUATOR": "Classification",
    "TEST.SPLIT": "test",
    "TEST.FINAL_MODEL": "last_step",
    "TEST.NO_TEST": False,
    "TEST.PER_CLASS_RESULT": False,
    "TEST.COMPUTE_CMAT": False,
}


@pytest.mark.parametrize(("key", "value"), DOCUMENTED.items())
def test_defaults_are_the_documented_ones(key, value):
    node = get_cfg_default()
    for part in key.split("."):
        node = node[part]
    assert node == value and type(node) is type(value)


def test_each_call_gives_its_own_configuration():
    get_cfg_default().SEED = 7
    assert get_cfg_default().SEED == -1


def test_lists_and_tuples_convert_and_yaml_exponents_are_numbers(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("INPUT:\n  SIZE: (32, 48)\n  TRANSFORMS: [normalize]\nOPTIM:\n  LR: 1e-5\n")
    cfg = get_cfg_default()
    cfg.merge_from_file(str(recipe))
    assert (cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS) == ((32, 48), ("normalize",))
    assert cfg.OPTIM.LR == 1e-5


def test_types_are_strict():
    with pytest.raises(ValueError, match="Type mismatch.*OPTIM.LR"):
        get_cfg_default().merge_from_list(["OPTIM.LR", 1])


def test_frozen_configurations_are_immutable():
    cfg = get_cfg_default()
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


def test_trainer_nodes_of_plain_yacs_can_be_added_and_merged():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 16})
    cfg.merge_from_list(["TRAINER.COOP.N_CTX", "4"])
    assert cfg.clone().TRAINER.COOP.N_CTX == 4


def test_cleaning_keeps_only_the_named_trainers_node():
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 16})
    clean_cfg(cfg, "CoOp")
    assert set(cfg.TRAINER) == {"NAME", "COOP"}
