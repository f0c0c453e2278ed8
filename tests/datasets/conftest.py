"""Settings as train.py makes them, a cache of each test's own, and the real images if present."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from causalclip import plugin
from causalclip.files.archives import unpack

# isort: split
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY

plugin.register_all()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(folder))
    return folder


@pytest.fixture
def load():
    """load(name, root, **DATASET settings): the data set as a trainer would get it."""

    def load(name, root, *, seed=1, **settings):
        cfg = plugin.extend_cfg(get_cfg_default())
        cfg.SEED = seed
        cfg.DATASET.merge_from_list([x for pair in settings.items() for x in pair])
        cfg.DATASET.ROOT = str(root)
        return DATASET_REGISTRY.get(name)(cfg)

    return load


@pytest.fixture(scope="session")
def real_images(tmp_path_factory) -> Path:
    """A root with Caltech101 and PACS cut down to a few images a class."""
    default = Path(__file__).parents[2] / ".." / "shared" / "data"
    source = Path(os.environ.get("CAUSALCLIP_TEST_DATA", default))
    archives = [source / "caltech101_mini.tar", source / "pacs_mini.tar"]
    if not all(path.is_file() for path in archives):
        pytest.skip(f"no real images in {source}; CAUSALCLIP_TEST_DATA names another folder")
    root = tmp_path_factory.mktemp("real")
    for path in archives:
        unpack(path, root, most_bytes=10**8)
    return root


@pytest.fixture
def small(tmp_path):
    """A root with a small Caltech101: 5 classes with 6 + 5 + 2 images each, all files empty."""
    folder = tmp_path / "old" / "caltech-101"
    split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(["face", "leopard", "accordion", "airplane", "anchor"]):
        for part, count in (("train", 6), ("val", 5), ("test", 2)):
            for n in range(count):
                path = f"{name}/{part}_{n}.jpg"
                split[part].append([path, label, name])
                image = folder / "101_ObjectCategories" / path
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(b"")
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    return tmp_path / "old"
