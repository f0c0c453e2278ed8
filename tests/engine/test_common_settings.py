"""The toolkit's settings, checked before any work."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from causalclip.engine.common_settings import SETTINGS, check_common, check_several_classes

WRONG = [
    ("OPTIM.MAX_EPOCH", 0),
    ("OPTIM.LR", -1.0),
    ("TEST.SPLIT", "nonsense"),
    ("TEST.FINAL_MODEL", "best-val"),
    ("TRAIN.PRINT_FREQ", 0),
    ("INPUT.SIZE", (-1,)),
    ("INPUT.SIZE", ()),
    ("INPUT.INTERPOLATION", "BILINAR"),
    ("INPUT.NO_TRANSFORM", True),
    ("INPUT.PIXEL_STD", [0.0, 1.0, 1.0]),
    ("DATALOADER.DRAWS", "both"),
    ("DATALOADER.DECODED_MB", -1),
    ("DATALOADER.K_TRANSFORMS", 0),
    ("DATALOADER.K_TRANSFORMS", 10**12),
    ("DATALOADER.NUM_WORKERS", -1),
    ("DATALOADER.TRAIN_X.BATCH_SIZE", 0),
    ("DATALOADER.TEST.BATCH_SIZE", 0),
    ("DATALOADER.TRAIN_X.N_INS", 0),
    ("DATALOADER.DECODED_MB", 10**14),
    ("INPUT.RRCROP_SCALE", (0.5,)),
    ("INPUT.RRCROP_SCALE", (0.9, 0.5)),
    ("INPUT.RRCROP_SCALE", (0.0, 0.0)),
    ("INPUT.TRANSFORMS", (1,)),
    ("INPUT.GB_K", 10**9 + 1),
    ("OPTIM.STEPSIZE", ()),
    ("OPTIM.MOMENTUM", 5.0),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=str)
def test_a_wrong_value_is_refused_with_its_key_and_what_is_allowed(key, value, make_cfg, tmp_path):
    cfg = make_cfg("CoOp", tmp_path)
    check_common(cfg)
    wrong = make_cfg("CoOp", tmp_path, key, value)
    with pytest.raises(ValueError, match=f"{key} must be {SETTINGS[key].words[:9]}.*, got "):
        check_common(wrong)


@pytest.mark.parametrize("name", [5, "", " ", "cat\n", "a\0b", "<|endoftext|>cat", "\ud800"])
def test_a_class_name_that_no_prompt_can_hold_is_refused(name, make_cfg, tmp_path):
    dataset = SimpleNamespace(classnames=["dog", name])
    with pytest.raises(ValueError, match="class names of .* must be printed text"):
        check_several_classes(make_cfg("CoOp", tmp_path), dataset)


def test_every_trainer_checks_them(make_trainer, tmp_path):
    with pytest.raises(ValueError, match="TEST.SPLIT must be one of test, val, got 'nonsense'"):
        make_trainer("ZeroshotCLIP", tmp_path, "TEST.SPLIT", "nonsense")


def test_domains_of_a_set_without_any_are_refused(make_trainer, tmp_path, data_root):
    (data_root / "plain" / "ant").mkdir(parents=True, exist_ok=True)
    (data_root / "plain" / "bee").mkdir(exist_ok=True)
    from PIL import Image

    for name in ("ant", "bee"):
        for number in range(10):
            Image.new("RGB", (32, 32)).save(data_root / "plain" / name / f"{number}.png")
    options = ["DATASET.NAME", "ImageFolder", "DATASET.PATH", "plain"]
    with pytest.raises(ValueError, match="must be empty for ImageFolder.*no domains, got sketch"):
        make_trainer("ZeroshotCLIP", tmp_path, *options, "DATASET.TARGET_DOMAINS", ["sketch"])
