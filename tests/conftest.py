"""Shared by the tests: the bundled data built once, and one way to build a trainer."""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
from functools import cache
from pathlib import Path

import pytest

# What needs torch is imported in functions: the process that only hands out the tests reads this
# file too, and the others start after it.

ROOT = Path(__file__).parents[1]
LONG = {  # ten seconds and more by many tests, none of which is slow
    *("test_checks.py", "test_clip_icm.py", "test_distributed.py", "test_evaluation_cache.py"),
    *("test_explain.py", "test_parity.py", "test_published.py", "test_recipe_new_method.py"),
}
# Of random_clip, by the prefix.
SHALLOW = {"PROMPT_DEPTH": 2, "REP_LAYERS": [2], "ADAPTER_START": 1, "ADAPTER_END": 2}


def pytest_sessionstart(session):
    """Mend Dassl before any module of tests imports it."""
    if not session.config.pluginmanager.hasplugin("dsession"):  # of xdist: it runs no test itself
        importlib.import_module("causalclip.plugin")


def pytest_collection_modifyitems(items):
    """Long modules come first: what ends on one core alone should be short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow and item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def feature_cache(tmp_path_factory):
    """Image features go to a folder of this test run, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAUSALCLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A data root for all workers, made by the first use: one of them draws the digits."""
    from causalclip import plugin
    from causalclip.datasets.handwritten_digits import HandwrittenDigits

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "data"
    plugin.register_all()
    cfg = plugin.default_cfg()
    cfg.DATASET.ROOT = str(folder)
    with open(folder.with_name("data.lock"), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        HandwrittenDigits(cfg)
    return folder


@pytest.fixture(autouse=True, scope="module")
def signals_left_as_found():
    """Ray keeps its own handler of SIGTERM in the process that has used it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def random_clip(tmp_path_factory) -> str:
    """File of a small random CLIP: two blocks a tower, 32-pixel images."""
    from causalclip.clip.backbone import build_clip, save_tiny

    # 128 features: a meta-net of a sixteenth of them has enough units that some are not dead.
    model = build_clip(vision_layers=2, transformer_layers=2, embed_dim=128)
    path = tmp_path_factory.mktemp("clip") / "random.safetensors"
    save_tiny(model, [], path)
    return str(path)


@pytest.fixture(scope="session")
def clip_files(tmp_path_factory) -> dict[str, str]:
    """Files of the CLIPs that the golden tensors were made with, by their shape's name."""
    from golden.cases import write_clips

    return write_clips(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def make_cfg(data_root, random_clip):
    """A function (trainer, output_dir, KEY, VALUE, ...) -> frozen configuration on digits."""
    from causalclip import plugin

    plugin.register_all()

    @cache
    def recipe(trainer: str):
        cfg = plugin.default_cfg()
        cfg.merge_from_file(str(min((ROOT / "configs" / "trainers" / trainer).glob("tiny*.yaml"))))
        for node in (cfg.TRAINER[name] for name in cfg.TRAINER if name != "NAME"):
            for key in node:
                node[key] = next((v for k, v in SHALLOW.items() if key.startswith(k)), node[key])
        return cfg

    def make(trainer: str, output_dir: Path, *options):
        cfg = recipe(trainer).clone()
        cfg.merge_from_list(
            ["DATASET.ROOT", str(data_root), "DATASET.NAME", "HandwrittenDigits"]
            + ["OUTPUT_DIR", str(output_dir), "TRAINER.NAME", trainer, "SEED", 1]
            + ["MODEL.BACKBONE.NAME", random_clip, "DATASET.NUM_SHOTS", 2]
            + ["DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.MAX_EPOCH", 1, "USE_CUDA", False]
            + list(options)
        )
        cfg.freeze()
        return cfg

    return make


@pytest.fixture
def make_trainer(make_cfg):
    """As make_cfg, but returns the trainer, built under the configuration's seed."""
    import torch
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    def make(trainer: str, output_dir: Path, *options):
        cfg = make_cfg(trainer, output_dir, *options)
        set_random_seed(cfg.SEED)
        torch.use_deterministic_algorithms(True)
        return build_trainer(cfg)

    yield make
    torch.use_deterministic_algorithms(False)


class Here:
    """A crew of one, this process: nothing is started and nothing imported anew."""

    def __init__(self) -> None:
        self.run = None

    def has_room(self) -> bool:
        return self.run is None

    is_idle = has_room

    def begin(self, run) -> None:
        self.run = run

    def heard(self, schedule):
        from causalclip.engine.draws import generators_kept
        from causalclip.runs import train, worker

        run, self.run = self.run, None
        with generators_kept():
            reason = worker.one(train.main, run.arguments, "runs")
        yield schedule.ended(run, reason, 0.0)


@pytest.fixture
def runs_here(monkeypatch):
    """The local engine does its runs in this process, one after the other."""
    from causalclip.runs.local import Local
    from causalclip.runs.schedule import Schedule, work

    def engine(self, runs, stop):
        return work(Schedule(runs), Here(), stop)

    monkeypatch.setattr(Local, "__call__", engine)
