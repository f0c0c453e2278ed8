"""Every YAML merges into the defaults, and says what it is for."""

from pathlib import Path

import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from causalclip import plugin

CONFIGS = Path(__file__).parents[1] / "configs"
TRAINERS = sorted(CONFIGS.glob("trainers/*/*.yaml"))
DATASETS = sorted(CONFIGS.glob("datasets/*.yaml"))


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.fixture(scope="module")
def registered():
    plugin.register_all()


@pytest.mark.parametrize("path", TRAINERS, ids=name)
def test_a_trainer_yaml_merges_and_belongs_to_a_registered_trainer(path, registered):
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.merge_from_file(str(path))
    assert path.parent.name in TRAINER_REGISTRY.registered_names()
    assert tuple(cfg.INPUT.PIXEL_MEAN) == (0.48145466, 0.4578275, 0.40821073)


@pytest.mark.parametrize("path", TRAINERS, ids=name)
def test_a_trainer_yaml_opens_with_what_it_is_and_its_command(path):
    head = path.read_text().split("\n\n")[0]
    assert head.startswith("# ")
    assert "Command: " in head


@pytest.mark.parametrize("path", DATASETS, ids=name)
def test_a_dataset_yaml_names_a_registered_data_set(path, registered):
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.merge_from_file(str(path))
    assert cfg.DATASET.NAME in DATASET_REGISTRY.registered_names()


def test_no_two_trainer_yamls_of_a_method_say_the_same():
    bodies = {}
    for path in TRAINERS:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        bodies.setdefault((path.parent.name, "\n".join(lines)), []).append(path.name)
    assert [names for names in bodies.values() if len(names) > 1] == []
