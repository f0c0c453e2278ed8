"""Every YAML file merges into the defaults and begins with its command."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from causalclip import plugin
from causalclip.clip.backbone import CLIP_MEAN, CLIP_STD
from causalclip.runs.configuration import merge_file
from causalclip.settings.config_file import read_config

CONFIGS = Path(__file__).parents[1] / "configs"
TRAINERS = sorted(CONFIGS.glob("trainers/*/[!_]*.yaml"))
DATASETS = sorted(CONFIGS.glob("datasets/*.yaml"))


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.fixture(scope="module")
def registered():
    plugin.register_all()


@pytest.mark.parametrize("path", TRAINERS, ids=name)
def test_a_trainer_yaml_opens_with_its_command_merges_and_is_of_a_trainer(path, registered):
    head = path.read_text().split("\n\n")[0]
    assert head.startswith("# ") and "Command: " in head
    cfg = plugin.default_cfg()
    merge_file(cfg, str(path))
    assert path.parent.name in TRAINER_REGISTRY.registered_names()
    assert tuple(cfg.INPUT.PIXEL_MEAN) == (0.48145466, 0.4578275, 0.40821073)
    assert tuple(cfg.INPUT.PIXEL_STD) == (0.26862954, 0.26130258, 0.27577711)
    assert cfg.INPUT.INTERPOLATION == "bicubic"


PLUGGED_IN = [path for path in TRAINERS if path.parent.name in ("CDC", "CLIP_ICM")]


@pytest.mark.parametrize("path", PLUGGED_IN, ids=name)
def test_a_yaml_of_a_plugged_in_method_is_complete_in_a_host_checkout(path):
    """There, Dassl's defaults stay: the mean of ImageNet's photographs, and bilinear."""
    cfg = plugin.extend_cfg(get_cfg_default())
    assert tuple(cfg.INPUT.PIXEL_MEAN) != CLIP_MEAN  # else this would show nothing
    cfg.merge_from_file(str(path))
    assert tuple(cfg.INPUT.PIXEL_MEAN) == CLIP_MEAN and tuple(cfg.INPUT.PIXEL_STD) == CLIP_STD
    assert cfg.INPUT.INTERPOLATION == "bicubic"


@pytest.mark.parametrize("path", [p for p in TRAINERS if p not in PLUGGED_IN], ids=name)
def test_what_clip_was_trained_with_stands_in_no_other_yaml(path):
    text = path.read_text()
    assert not [key for key in ("PIXEL_MEAN", "PIXEL_STD", "INTERPOLATION") if key in text]


@pytest.mark.parametrize("path", DATASETS, ids=name)
def test_a_dataset_yaml_names_a_registered_data_set(path, registered):
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.merge_from_file(str(path))
    assert cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()


def test_no_two_trainer_yamls_of_a_method_say_the_same():
    said = {}
    for path in TRAINERS:
        settings = yaml.safe_dump(read_config(path))
        said.setdefault((path.parent.name, settings), []).append(path.name)
    assert [names for names in said.values() if len(names) > 1] == []
