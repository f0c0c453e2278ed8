"""INPUT as the backbone learned overrides the configuration; data that no method can use."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from PIL import Image

import causalclip
from causalclip import plugin
from causalclip.engine.data import (
    build_seeded_dataset,
    check_dataset,
    squashing_transform,
    with_preprocessing,
)

# isort: split
from dassl.data.datasets import build_dataset
from dassl.utils import set_random_seed


@pytest.fixture
def cfg():
    cfg = plugin.default_cfg()
    cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS = (32, 32), ["normalize"]
    return cfg


def test_a_backbone_that_does_not_say_it_leaves_the_configuration(cfg, capsys):
    cfg.MODEL.BACKBONE.NAME = "tiny"
    assert with_preprocessing(cfg) is cfg and capsys.readouterr().out == ""
    assert squashing_transform(cfg) is None


def test_the_models_own_preprocessing_takes_the_place_of_input_with_a_line_in_the_log(cfg, capsys):
    cfg.MODEL.BACKBONE.NAME = "open_clip:ViT-B-16-SigLIP2-256/webli"
    seen = with_preprocessing(cfg)
    line = capsys.readouterr().out
    assert line.startswith(
        "Preprocessing of open_clip:ViT-B-16-SigLIP2-256/webli: INPUT.SIZE (256, 256)"
    )
    assert "INPUT.RESIZE_MODE squash" in line and "INTERPOLATION" not in line
    assert (cfg.INPUT.SIZE, seen.INPUT.SIZE) == ((32, 32), (256, 256))
    assert seen.is_frozen()
    assert with_preprocessing(seen) is seen


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP2/webli", "ViT-B-16/openai"])
def test_test_images_are_what_open_clips_own_transform_makes_of_them(cfg, name):
    from dassl.data.transforms import build_transform

    cfg.MODEL.BACKBONE.NAME = f"open_clip:{name}"
    cfg = with_preprocessing(cfg)
    picture = Image.effect_noise((300, 200), 80).convert("RGB")
    own = squashing_transform(cfg) or build_transform(cfg, is_train=False)
    known = open_clip.get_pretrained_cfg(*name.split("/"))
    options = {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    theirs = open_clip.image_transform(224, is_train=False, **options)
    assert torch.allclose(own(picture), theirs(picture), atol=1e-6)


@pytest.mark.parametrize("name", [5, "", " ", "cat\n", "a\0b", "<|endoftext|>cat", "\ud800"])
def test_a_class_name_that_no_prompt_can_hold_is_refused(name, make_cfg, tmp_path):
    dataset = SimpleNamespace(classnames=["dog", name])
    with pytest.raises(ValueError, match="class names of .* must be printed text"):
        check_dataset(make_cfg("CoOp", tmp_path), dataset)


def test_domains_of_a_set_without_any_are_refused(make_trainer, tmp_path, data_root):
    (data_root / "plain" / "ant").mkdir(parents=True, exist_ok=True)
    (data_root / "plain" / "bee").mkdir(exist_ok=True)
    for name in ("ant", "bee"):
        for number in range(10):
            Image.new("RGB", (32, 32)).save(data_root / "plain" / name / f"{number}.png")
    options = ["DATASET.NAME", "ImageFolder", "DATASET.PATH", "plain"]
    with pytest.raises(ValueError, match="must be empty for ImageFolder.*no domains, got sketch"):
        make_trainer("ZeroshotCLIP", tmp_path, *options, "DATASET.TARGET_DOMAINS", ["sketch"])


def test_few_shots_are_those_of_a_training_wherever_they_are_drawn(cfg, tmp_path, monkeypatch):
    plugin.register_all()
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(tmp_path / "cache"))
    for index in range(60):
        path = tmp_path / "set" / f"class{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (4 * index, 0, 0)).save(path)
    words = ["DATASET.ROOT", str(tmp_path), "DATASET.NAME", "ImageFolder", "DATASET.PATH", "set"]
    cfg.merge_from_list([*words, "DATASET.NUM_SHOTS", 2, "SEED", 3])

    def drawn(build):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # the stored draws
        return [(item.impath, item.label) for item in build(cfg).train_x]

    set_random_seed(cfg.SEED)  # as a training begins
    expected = drawn(build_dataset)
    for state in (1, 2):
        random.seed(state)
        before = random.getstate()
        assert drawn(build_seeded_dataset) == expected
        assert random.getstate() == before
        assert drawn(build_dataset) != expected  # the plain one follows the process's generator


def test_no_other_module_builds_a_data_set_unseeded():
    files = Path(causalclip.__path__[0]).rglob("*.py")
    callers = [file for file in files if "build_dataset(" in file.read_text(encoding="utf-8")]
    assert [file.name for file in callers if "minidassl" not in str(file)] == ["data.py"]
