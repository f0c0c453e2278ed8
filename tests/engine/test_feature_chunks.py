"""Features encoded in chunks: the bytes of one process, and what was done is not done again."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import ToTensor

from causalclip.engine import feature_cache
from causalclip.engine.cache_size import main as cache_command
from causalclip.engine.feature_cache import Encoder, ImageSet

COUNT = 23


def tower(images: torch.Tensor) -> torch.Tensor:
    """Features that depend on the batch as well."""
    return images.mean(-1).flatten(1) + images.mean()


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """A function: cache -> an encoder of COUNT pictures, in chunks of three batches."""
    monkeypatch.setattr(feature_cache, "CHUNK_IMAGES", 7)
    (tmp_path / "data").mkdir()
    for number in range(COUNT):
        picture = Image.new("RGB", (4, 4), (number, 7 * number, 3))
        picture.save(tmp_path / "data" / f"{number:02}.png")

    def make(cache="chunks"):
        return Encoder(
            encode=tower,
            dim=12,
            identity="weights",
            transform=ToTensor(),
            root=str(tmp_path / "data"),
            batch_size=2,
            cache=tmp_path / cache,
        )

    return make


@pytest.fixture
def images(encoder, tmp_path):
    return ImageSet(sorted(map(str, (tmp_path / "data").iterdir())))


def test_chunks_put_together_are_the_bytes_of_one_process(encoder, images):
    alone, parts = encoder("alone"), encoder()
    alone.features(images.paths)
    chunks = parts.chunks(images)
    assert [len(rows) for rows in chunks.rows()] == [6, 6, 6, 5]
    for rows in reversed(chunks.missing()):
        part = ImageSet(images.paths[rows.start : rows.stop])
        parts.write_chunk(part, chunks.path(rows))
    assert chunks.missing() == []
    chunks.join()
    assert chunks.file.read_bytes() == alone.file_of(images.paths).read_bytes()
    assert parts.chunks(images) is None and not chunks.folder.exists()


def test_a_chunk_that_is_there_is_not_missing(encoder, images):
    chunks = encoder().chunks(images)
    first, *others = chunks.missing()
    encoder().write_chunk(ImageSet(images.paths[:6]), chunks.path(first))
    assert encoder().chunks(images).missing() == others


def test_the_cache_command_counts_and_removes_what_was_left_unfinished(
    encoder, images, tmp_path, capsys
):
    folder = encoder().chunks(images).folder
    os.makedirs(folder)
    np.save(folder / "0-6.npy", np.zeros((6, 12), np.float32))
    assert cache_command(["list", "--folder", str(tmp_path / "chunks")]) == 0
    assert "1 unfinished" in capsys.readouterr().out
    assert cache_command(["clear", "--folder", str(tmp_path / "chunks")]) == 0
    assert list(folder.parent.iterdir()) == []
