"""Settings as train.py makes them, a separate cache for each test, and real images if found."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
from dataclasses import replace as shrunk
from pathlib import Path

import gdown
import pytest
import replicas
from archives import plain_tar
from gdown.exceptions import FileURLRetrievalError
from hub_server import local_server

from causalclip import plugin
from causalclip.data.bundled import MARKER
from causalclip.data.catalogue import Download, facts_of
from causalclip.files.digests import Known
from causalclip.files.download import unpack

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
    """A function (name, root, **DATASET settings) -> the data set that a trainer would get."""

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


@pytest.fixture
def drawn(tmp_path):
    """Five pictures in each of two looks below `tmp_path`; the facts of that data set."""
    facts = shrunk(facts_of("HandwrittenDigits"), looks=("ink", "chalk"), pictures=5)
    folder = tmp_path / facts.folder
    for look in facts.looks:
        replicas.put_images(folder / look, [f"zero/{i}.jpg" for i in range(3)])
        replicas.put_images(folder / look, [f"one/{i}.jpg" for i in range(2)])
    for file in (MARKER, facts.split_file):
        (folder / file).write_text("{}")
    return facts


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """A server of a folder; `server.asked` lists the requests."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, template, *args):
            self.server.asked.append(args[0])

    with local_server(Handler) as server:
        server.asked, server.folder = [], folder
        yield server


@pytest.fixture
def drive(monkeypatch):
    """Google Drive as a dictionary: id -> content."""
    files = {}

    def fake(*, id, output, resume, progress):
        if id not in files:
            raise FileURLRetrievalError("too many users have viewed this file")
        part = replicas.put(Path(f"{output}a1b2c3d4.part"), files[id])
        progress(len(files[id]), None)  # may raise, as gdown's own progress does
        return str(part.rename(output))

    monkeypatch.setattr(gdown, "download", fake)
    return files


@pytest.fixture
def food(server, drive):
    archive = plain_tar(
        {"food-101/images/pie/1.jpg": replicas.JPEG, "food-101/README.txt": b"hello"}
    )
    (server.folder / "food-101.tar.gz").write_bytes(archive)
    drive["SPLIT"] = b'{"train": [], "val": [], "test": []}'
    return shrunk(
        facts_of("Food101"),
        downloads=(
            Download(
                file="food-101.tar.gz",
                url=f"{server.url}/food-101.tar.gz",
                known=Known(md5=hashlib.md5(archive).hexdigest()),
                unpack=True,
                move={"food-101": "."},
            ),
            Download(file="split_zhou_Food101.json", drive="SPLIT"),
        ),
    )
