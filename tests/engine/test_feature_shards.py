"""Features filled by several processes: each image once, and the bytes of one process."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import ToTensor

from causalclip.engine import feature_shards
from causalclip.engine.cache_command import main as cache_command
from causalclip.engine.cache_size import features_folder
from causalclip.engine.feature_cache import Encoder
from causalclip.engine.feature_shards import Shards

FORK = multiprocessing.get_context("fork")  # the imports are there
COUNT = 23


class Tower:
    """Features that depend on the batch as well; notes each image on disk, and takes its time."""

    def __init__(self, notes: Path, seconds: float = 0.0) -> None:
        self.notes, self.seconds = notes, seconds

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        names = (images[:, 0, 0, 0] * 255).round().int().tolist()
        with open(self.notes, "a") as file:
            file.write("".join(f"{name}\n" for name in names))
        return images.mean(-1).flatten(1) + images.mean()


@pytest.fixture
def encoder(tmp_path):
    """A function (cache, seconds a batch) -> an encoder that shares the work on COUNT pictures."""
    (tmp_path / "data").mkdir()
    for number in range(COUNT):
        picture = Image.new("RGB", (4, 4), (number, 7 * number, 3))
        picture.save(tmp_path / "data" / f"{number:02}.png")

    def make(cache="shared", seconds=0.0, **options):
        return Encoder(
            encode=Tower(tmp_path / f"{cache}.txt", seconds),
            dim=12,
            identity="weights",
            transform=ToTensor(),
            root=str(tmp_path / "data"),
            batch_size=2,
            cache=tmp_path / cache,
            **{"shared": True, **options},
        )

    return make


@pytest.fixture
def paths(encoder, tmp_path):
    return sorted(map(str, (tmp_path / "data").iterdir()))


@pytest.fixture
def alone(encoder, paths):
    """The file that one process writes."""
    one = encoder("alone", shared=False)
    one.features(paths)
    return one.file_of(paths).read_bytes()


def encoded(tmp_path, cache="shared") -> Counter:
    return Counter((tmp_path / f"{cache}.txt").read_text().split())


def start(encoder, paths):
    process = FORK.Process(target=encoder.features, args=(paths,))
    process.start()
    return process


def until(true) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be")


def test_two_workers_that_find_a_damaged_file_make_it_again_once(encoder, paths, alone, tmp_path):
    file = encoder().file_of(paths)
    file.parent.mkdir(parents=True)
    file.write_bytes(alone[:200] + b"?" + alone[201:])
    workers = [start(encoder(seconds=0.02), paths) for _ in range(2)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert encoded(tmp_path) == dict.fromkeys(map(str, range(COUNT)), 1)
    assert file.read_bytes() == alone


@pytest.mark.parametrize("loaders", [0, 2])
def test_two_workers_at_once_encode_each_image_once(encoder, paths, alone, tmp_path, loaders):
    workers = [start(encoder(seconds=0.02, num_workers=loaders), paths) for _ in range(2)]
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert encoded(tmp_path) == dict.fromkeys(map(str, range(COUNT)), 1)
    mine = encoder()
    assert mine.file_of(paths).read_bytes() == alone
    assert not list(mine.file_of(paths).parent.glob("*.shards"))


def test_what_a_killed_worker_has_finished_is_not_encoded_again(encoder, paths, alone, tmp_path):
    killed = start(encoder(seconds=0.05), paths)
    folder = Shards(encoder().file_of(paths), COUNT, 12, 2).folder
    until(lambda: folder.exists() and len(list(folder.glob("[0-9]*.npy"))) >= 3)
    killed.kill()
    killed.join()
    whole = len(list(folder.glob("[0-9]*.npy")))
    assert 3 <= whole < 12
    other = encoder(shared=False)  # an ordinary run that finds what was begun
    other.features(paths)
    assert other.file_of(paths).read_bytes() == alone
    counts = encoded(tmp_path)
    assert all(counts[str(number)] == 1 for number in range(2 * whole))
    assert set(counts) == set(map(str, range(COUNT)))
    assert sum(counts.values()) <= COUNT + 2  # what it was at when it died
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["one bit", "cut", "another length", "not sealed"])
def test_a_damaged_shard_is_said_and_encoded_again(
    damage, encoder, paths, alone, tmp_path, monkeypatch, capsys
):
    shared = encoder()
    shards = Shards(shared.file_of(paths), COUNT, 12, 2)
    with monkeypatch.context() as patch:  # all shards are there, and nobody has joined them yet
        patch.setattr(Shards, "_join", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            shared.features(paths)
    content = shards.path(4).read_bytes()
    shards.path(4).write_bytes(
        {
            "one bit": content[:150] + bytes([content[150] ^ 1]) + content[151:],
            "cut": content[:-40],
            "another length": content + b"?",
            "not sealed": content[:-32],
        }[damage]
    )
    shared.features(paths)
    assert shared.file_of(paths).read_bytes() == alone
    assert f"{shards.path(4)} is damaged" in capsys.readouterr().out
    assert {name for name, count in encoded(tmp_path).items() if count == 2} == {"8", "9"}


def test_a_worker_takes_over_from_one_that_dies_beside_it(encoder, paths, alone, tmp_path):
    stuck = start(encoder(seconds=60), paths)
    folder = Shards(encoder().file_of(paths), COUNT, 12, 2).folder
    other = start(encoder(), paths)
    until(lambda: folder.exists() and len(list(folder.glob("[0-9]*.npy"))) == 11)
    time.sleep(0.2)
    assert other.is_alive()  # it waits for the last shard, which somebody has
    stuck.kill()
    stuck.join()
    other.join()
    assert other.exitcode == 0
    assert encoded(tmp_path) == dict.fromkeys(map(str, range(COUNT)), 1)
    assert encoder().file_of(paths).read_bytes() == alone


def test_a_large_set_has_shards_of_several_batches(encoder, paths, alone, monkeypatch):
    monkeypatch.setattr(feature_shards, "MOST", 5)
    shards = Shards(encoder().file_of(paths), COUNT, 12, 2)
    assert [len(shards.rows(number)) for number in range(len(shards))] == [6, 6, 6, 5]
    encoder().features(paths)
    assert encoder().file_of(paths).read_bytes() == alone


def test_an_image_without_features_ends_the_work_and_keeps_the_shards(encoder, paths):
    def broken(images):
        features = images.mean(-1).flatten(1)
        return features / ((features[:, :1] * 255).round() != 8)  # the ninth image

    failing = Encoder(**{**vars(encoder()), "encode": broken})
    with pytest.raises(ValueError, match="NaN or infinity for 1 images, the first: .*08.png"):
        failing.features(paths)
    assert Shards(failing.file_of(paths), COUNT, 12, 2).done() == 8


def test_the_cache_command_counts_and_removes_what_was_left_unfinished(
    encoder, paths, tmp_path, capsys
):
    folder = features_folder(tmp_path / "shared")
    left = Shards(encoder().file_of(paths), COUNT, 12, 2).folder
    os.makedirs(left)
    np.save(left / "0.npy", np.zeros((2, 12), np.float32))
    assert cache_command(["list", "--folder", str(tmp_path / "shared")]) == 0
    assert "1 unfinished" in capsys.readouterr().out
    assert cache_command(["clear", "--folder", str(tmp_path / "shared")]) == 0
    assert list(folder.iterdir()) == []
