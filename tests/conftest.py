"""Shared by the tests: the bundled data built once, and one way to build a trainer."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Modules that import torch are imported inside functions: the process of pytest-xdist that only
# distributes the tests reads this file too, before the workers start.

ROOT = Path(__file__).parents[1]
LONG = {  # many short tests, ten seconds or more in total
    *("test_checks.py", "test_clip_icm.py", "test_distributed.py", "test_evaluation_cache.py"),
    *("test_explain.py", "test_parity.py", "test_published.py", "test_recipe_new_method.py"),
}
SCANS = {"train": 500, "val": 1797, "spare": 250, "heldout": 250}
"""Number of the 1,797 digits that `data_root` contains in each part, counted from the first."""
# Settings for the two blocks of random_clip, by prefix of the key.
SHALLOW = {"PROMPT_DEPTH": 2, "REP_LAYERS": [2], "ADAPTER_START": 1, "ADAPTER_END": 2}


def pytest_addoption(parser):
    text = "damaged inputs for each test of tests/faults"
    parser.addoption("--faults", type=int, default=15, metavar="N", help=text)


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "minidassl: of what minidassl mends or says, not Dassl 0.6.3"
    )
    number = config.getoption("--faults")
    given = {"deadline": None, "suppress_health_check": list(HealthCheck)}
    settings.register_profile("faults", max_examples=number, **given)
    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")


def pytest_sessionstart(session):
    """Patch Dassl before any test module imports it."""
    if not session.config.pluginmanager.hasplugin(
        "dsession"
    ):  # the main process of xdist runs no test
        importlib.import_module("causalclip.plugin")


def pytest_collection_modifyitems(items):
    """Run long modules first, so that workers end together; on Dassl skip minidassl's own tests."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow and item.path.name not in LONG)
    dassl = importlib.import_module("dassl")
    if not dassl.__version__.endswith("+mini"):
        skip = pytest.mark.skip(
            reason=f"Dassl {dassl.__version__} has the fault or lacks the message"
        )
        for item in items:
            if item.get_closest_marker("minidassl"):
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def feature_cache(tmp_path_factory):
    """Image features go to a folder of this test run, not to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAUSALCLIP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_cut():
    """Replace os.fsync, which can take seconds after large writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def each_clip_built_once():
    """Load the CLIP of each file once; trainers get a copy of it."""
    from one_process import clips_kept

    with pytest.MonkeyPatch.context() as patch:
        clips_kept(patch)
        yield


@pytest.fixture(scope="session")
def draw_once(tmp_path_factory):
    """A function (name, module, data set, write) -> a data root, built by one worker for all."""
    from causalclip.data.bundled import build_once

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def draw(name, module, kind, write) -> Path:
        with open(base / f"{name}.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            build_once(base / name, kind.dataset_dir, write, edition=module.EDITION)
        return base / name

    return draw


@pytest.fixture(scope="session")
def all_digits(draw_once) -> Path:
    """A data root with every digit."""
    from causalclip.datasets import handwritten_digits as digits

    kind = digits.HandwrittenDigits
    return draw_once("data", digits, kind, digits.write_digits)


@pytest.fixture(scope="session")
def coloured_digits(draw_once) -> Path:
    """A data root of ColouredDigits with the first 900 of 1,797 scans."""
    import sklearn.datasets

    from causalclip.datasets import handwritten_digits as digits

    scans = sklearn.datasets.load_digits()
    scans.images, scans.target = scans.images[:900], scans.target[:900]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.datasets, "load_digits", lambda: scans)
        return draw_once("coloured", digits, digits.ColouredDigits, digits.write_coloured)


@pytest.fixture(scope="session")
def few_shapes(draw_once) -> Path:
    """A data root of CausalShapes with 20 instances of each shape in place of 80."""
    from causalclip.datasets import causal_shapes as shapes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "INSTANCES", 20)
        return draw_once("shapes", shapes, shapes.CausalShapes, shapes.write_shapes)


@pytest.fixture(scope="session")
def data_root(all_digits, tmp_path_factory) -> Path:
    """A data root with some of the digits, as most of the time is spent on test images."""
    whole = all_digits / "handwritten_digits"
    folder = tmp_path_factory.mktemp("data") / whole.name
    for path in whole.glob("*/*/*.png"):
        part, _, number = path.stem.partition("_")
        if int(number) < SCANS[part]:
            place = folder / path.relative_to(whole)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)
    for path in whole.glob("*.json"):
        content = json.loads(path.read_text())
        if path.name.startswith("split"):
            for part, rows in content.items():
                content[part] = [row for row in rows if (folder / row[0]).exists()]
        (folder / path.name).write_text(json.dumps(content))
    return folder.parent


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local hub that serves the folders below tmp_path/hub; pushed files go there."""
    pytest.importorskip("huggingface_hub")
    from hub_server import serving

    with serving(tmp_path / "hub", tmp_path / "cache", monkeypatch) as root:
        yield root


@pytest.fixture(autouse=True, scope="module")
def signals_left_as_found():
    """Restore the signal handlers: Ray leaves its own handler of SIGTERM installed."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def random_clip(tmp_path_factory) -> str:
    """File of a small random CLIP: two blocks a tower, 32-pixel images."""
    from causalclip.clip.backbone import build_clip
    from causalclip.clip.weights import save_tiny

    # 128 features: a meta-net has a sixteenth as many units, enough that some are active.
    model = build_clip(vision_layers=2, transformer_layers=2, embed_dim=128)
    path = tmp_path_factory.mktemp("clip") / "random.safetensors"
    save_tiny(model, [], path)
    return str(path)


@pytest.fixture(scope="session")
def clip_files(tmp_path_factory) -> dict[str, str]:
    """Files of the CLIPs that the golden tensors were made with, by their shape's name."""
    from golden.cases import write_clips

    return write_clips(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def small_world(tmp_path_factory) -> Iterator[Path]:
    """The world of `causalclip check` with two blocks a tower; PromptSRC has three templates."""
    from small_world import BLOCKS

    from causalclip import plugin
    from causalclip.checks.world import make_world
    from causalclip.trainers import promptsrc

    plugin.register_all()
    with pytest.MonkeyPatch.context() as patch:  # all sixty templates would be slow
        patch.setattr(promptsrc, "SIXTY_TEMPLATES", promptsrc.SIXTY_TEMPLATES[:3])
        yield make_world(tmp_path_factory.mktemp("world"), blocks=BLOCKS)


@pytest.fixture(scope="session")
def make_cfg(data_root, random_clip):
    """A function (trainer, output_dir, KEY, VALUE, ...) -> frozen configuration on digits."""
    from causalclip import plugin
    from causalclip.runs.configuration import merge_file

    plugin.register_all()

    @cache
    def recipe(trainer: str):
        cfg = plugin.default_cfg()
        merge_file(cfg, str(min((ROOT / "configs" / "trainers" / trainer).glob("tiny*.yaml"))))
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
def encoded(monkeypatch):
    """A list with one int: the number of images that this process has encoded so far."""
    from causalclip.engine import frozen_clip, prompt_trainer

    count = [0]
    places = ((frozen_clip, "encode_image"), (prompt_trainer, "encode_prompted_image"))
    for module, name in places:
        encode = getattr(module, name)

        def counting(model, images, *prompts, encode=encode):
            count[0] += len(images)
            return encode(model, images, *prompts)

        monkeypatch.setattr(module, name, counting)
    return count


@pytest.fixture(scope="module")
def trained(make_cfg, tmp_path_factory):
    """A function (name, *options) -> (trainer, output folder) of one short, cached training."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    runs = {}

    def train(name, *options):
        key = (name, *map(str, options))
        if key not in runs:
            folder = tmp_path_factory.mktemp(name)
            set_random_seed(1)
            trainer = build_trainer(make_cfg(name, folder, *options))
            trainer.train()
            runs[key] = trainer, folder
        return runs[key]

    return train


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


@pytest.fixture
def registry_as_before(monkeypatch):
    """Unregister the methods that a test registers."""
    from dassl.engine import TRAINER_REGISTRY

    from causalclip.runs import configuration

    for name in ("_objects", "_obj_map"):  # minidassl's, Dassl's
        if hasattr(TRAINER_REGISTRY, name):
            monkeypatch.setattr(TRAINER_REGISTRY, name, dict(getattr(TRAINER_REGISTRY, name)))
    configuration._pickled_cfg.cache_clear()
    yield
    configuration._pickled_cfg.cache_clear()


@pytest.fixture
def runs_here(monkeypatch):
    """Let the local pool perform its tasks in this process, one after the other."""
    from one_process import tasks_here

    tasks_here(monkeypatch)
