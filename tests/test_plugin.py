"""The plug-in registers two names and no more, each once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from causalclip import datasets, plugin
from causalclip.errors import UserError
from causalclip.trainers.coop import CoOp

# isort: split
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import Registry

ROOT = Path(__file__).parents[1]

# One start, step by step: what each brings that is heavy, and what the plug-in registers. A fork of
# it imports the rest: what runs things, and the plug-in itself, may register, nothing else.
STARTED = """
import importlib, json, os, pkgutil, sys
HEAVY = {"sklearn", "pandas", "torchmetrics", "scipy.stats", "scipy.linalg", "matplotlib"}
import causalclip.metrics, causalclip.icm.fitted
alone = set(sys.modules) & HEAVY
for room in ("causalclip.cdc", "causalclip.icm"):
    for info in pkgutil.iter_modules(importlib.import_module(room).__path__, f"{room}."):
        importlib.import_module(info.name)
mathematics = set(sys.modules) & {"dassl", "yacs", "clip", "causalclip.engine"}
from causalclip import dassl_compat as compat
compat.patch_dassl()
import dassl.engine
before = set(sys.modules)  # whatever Dassl itself imports
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
registries, patches = (TRAINER_REGISTRY, DATASET_REGISTRY), compat._patches
names = [set(registry.registered_names()) for registry in registries]
new = lambda: [sorted(set(r.registered_names()) - taken) for r, taken in zip(registries, names)]
if not os.fork():
    rooms = "plugin", "runs", "predict", "checks", "__main__"
    starts = tuple(f"causalclip.{room}" for room in rooms)
    walk = pkgutil.walk_packages(causalclip.__path__, "causalclip.")
    rest = [info.name for info in walk if not info.name.startswith(starts)]
    for name in rest:
        importlib.import_module(name)
    facts = {"rest": rest, "unchanged": compat._patches is patches, "registered by the rest": new()}
    print(json.dumps(facts), flush=True)
    os._exit(0)
os.wait()
from dassl.config import get_cfg_default
cfg = get_cfg_default()
nodes = set(cfg.TRAINER)
import causalclip.plugin
causalclip.plugin.extend_cfg(cfg)
facts = {"registered": new(), "nodes": sorted(set(cfg.TRAINER) - nodes)}
from causalclip.runs import train
train.plugin.register_all()
everything = (set(sys.modules) - before) & HEAVY
facts |= {"classes": cfg.DATASET.SUBSAMPLE_CLASSES, "mathematics": [*mathematics]}
print(json.dumps({**facts, "alone": [*alone], "everything": [*everything]}))
"""


@pytest.fixture(scope="module")
def started() -> dict[str, list]:
    """Output of STARTED, run in another process."""
    command = [sys.executable, "-W", "ignore", "-c", STARTED]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    rest, own = map(json.loads, done.stdout.splitlines()[-2:])
    return {**rest, **own}


def test_the_plugin_adds_cdc_and_clip_icm_alone_to_trainers_and_configuration(started):
    assert started["registered"] == [["CDC", "CLIP_ICM"], []]
    assert (started["nodes"], started["classes"]) == (["CDC", "CLIP_ICM"], "all")


@pytest.mark.parametrize("imported", ["alone", "everything"])
def test_a_start_imports_nothing_heavy_that_it_may_not_need(imported, started):
    """The metrics and a probe; then every trainer and data set."""
    assert started[imported] == []


def test_the_rooms_of_mathematics_are_used_without_dassl_and_settings(started):
    assert started["mathematics"] == []


def test_importing_any_other_module_mends_and_registers_nothing(started):
    assert started["unchanged"]
    assert started["registered by the rest"] == [[], []]
    assert {"causalclip.trainers.cdc", "causalclip.datasets.folders"} <= set(started["rest"])


def test_registering_everything_twice_takes_no_name_twice():
    plugin.register_all()
    names = TRAINER_REGISTRY.registered_names()
    plugin.register_all()
    assert TRAINER_REGISTRY.registered_names() == names
    assert len(set(names)) == len(names)


def test_a_taken_name_is_refused():
    plugin.register_all()
    with pytest.raises(KeyError, match='"CoOp" was already registered'):

        @TRAINER_REGISTRY.register()
        class CoOp:
            pass


def module(name: str, **content) -> ModuleType:
    """Return a module of a user with some content."""
    made = ModuleType(name)
    vars(made).update(content)
    return made


def test_a_module_offers_its_own_methods_and_not_those_it_imports(monkeypatch):
    class Mine(CoOp):
        config_node = "MINE"
        __module__ = "mine"

    class Shared(CoOp):
        """Has no node of its own: what two methods share."""

        __module__ = "mine"

    offered = module("mine", CoOp=CoOp, Mine=Mine, Shared=Shared, number=3)
    assert plugin.methods_of(offered) == [Mine]


def test_a_method_that_dassls_decorator_registered_is_not_registered_again(monkeypatch):
    registry = Registry("TRAINER")
    monkeypatch.setattr(plugin, "TRAINER_REGISTRY", registry)

    class Mine(CoOp):
        config_node = "MINE"
        __module__ = "mine"

    registry.register(Mine)
    plugin.register(module("mine", Mine=Mine))
    assert registry.get("Mine") is Mine
    other = type("Mine", (CoOp,), {"config_node": "OTHER", "__module__": "other"})
    with pytest.raises(KeyError, match='"Mine" was already registered'):
        plugin.register(module("other", Mine=other))


def test_a_module_lists_its_data_sets(monkeypatch):
    registry = Registry("DATASET")
    monkeypatch.setattr(plugin, "DATASET_REGISTRY", registry)
    photos = type("Photos", (), {})
    plugin.register(module("mine", DATASETS=(photos,)))
    assert registry.get("Photos") is photos


def test_every_data_set_of_ours_is_listed_by_its_module():
    plugin.register_all()
    ours = {
        dataset.__name__
        for made in plugin.modules_of(datasets)
        for dataset in getattr(made, "DATASETS", ())
    }
    assert ours <= set(DATASET_REGISTRY.registered_names())
    assert {"Caltech101", "ImageNetA", "DomainBedPACS", "Table", "CausalShapes"} <= ours


def test_a_module_of_the_current_folder_is_imported_by_an_installed_command_too(
    tmp_path, monkeypatch
):
    (tmp_path / "module_of_this_folder.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    plugin.register_imports(["module_of_this_folder"])
    assert sys.modules["module_of_this_folder"].__file__ == str(
        tmp_path / "module_of_this_folder.py"
    )
    with pytest.raises(UserError, match="--import nowhere_at_all: No module named"):
        plugin.register_imports(["nowhere_at_all"])
