"""The feature cache: which images are encoded, and which files are on disk."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import Compose, Resize, ToTensor

from causalclip.engine import feature_cache
from causalclip.engine.cache_size import feature_home
from causalclip.engine.cache_size import main as cache_command
from causalclip.engine.feature_cache import Encoder, ImageSet, batches


class Counted:
    """A tower that counts the images it is given; its features are means of the picture."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return images.mean(-1).flatten(1)


class Inverted:
    def __call__(self, image, key):
        return ImageOps.invert(image)

    def __repr__(self):
        return "Inverted()"


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for i in range(5):
        paths.append(str(root / f"{i}.ppm"))  # not compressed: all of one size
        Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(paths[-1])
    return root, paths


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(folder))
    return folder


def encoder(root, tower=None, **options) -> Encoder:
    facts = {"dim": 24, "identity": "weights", "transform": ToTensor(), "root": str(root)}
    facts |= {"batch_size": 2, "cache": feature_home()}
    return Encoder(encode=tower or Counted(), **{**facts, **options})


def test_an_image_is_encoded_once_and_its_changed_twin_once(pictures, cache):
    root, paths = pictures
    tower = Counted()
    first = encoder(root, tower).features(paths)
    changed = encoder(root, tower).features(paths, Inverted())
    assert tower.images == 10
    again = encoder(root, tower)
    np.testing.assert_array_equal(again.features(paths), first)
    np.testing.assert_array_equal(again.features(paths, Inverted()), changed)
    assert tower.images == 10
    expected = np.stack([np.asarray(Image.open(p)).transpose(2, 0, 1) / 255 for p in paths])
    np.testing.assert_allclose(first, expected.mean(-1).reshape(5, -1), atol=1e-6)
    np.testing.assert_allclose(first + changed, 1, atol=1e-6)


@pytest.mark.parametrize(
    "difference", ["weights", "transform", "list", "order", "replaced", "exchanged"]
)
def test_whatever_changes_the_features_changes_the_key(difference, pictures, cache):
    root, paths = pictures
    encoder(root).features(paths)
    options, tower = {}, Counted()
    if difference == "weights":
        options["identity"] = "others"
    if difference == "transform":
        options["transform"] = Compose([Resize(8), ToTensor()])
    if difference == "list":
        paths = paths[:4]
    if difference == "order":
        paths = paths[::-1]
    if difference == "exchanged":  # for one of the same size, with the time set back
        stat = os.stat(paths[2])
        other = bytes(reversed(range(192)))
        Path(paths[2]).write_bytes(Path(paths[2]).read_bytes()[:-192] + other)
        os.utime(paths[2], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if difference == "replaced":
        Image.new("RGB", (8, 8)).save(paths[2])
    encoder(root, tower, **options).features(paths)
    assert tower.images == len(paths)


def test_a_file_that_was_only_touched_is_the_same_picture(pictures, cache):
    root, paths = pictures
    encoder(root).features(paths)
    os.utime(paths[2], (1, 1))
    tower = Counted()
    encoder(root, tower).features(paths)
    assert tower.images == 0


@pytest.mark.parametrize("damage", ["zeroed", "cut", "empty", "one bit", "longer"])
def test_a_damaged_file_of_the_cache_is_said_and_made_again(damage, pictures, cache, capsys):
    root, paths = pictures
    first = np.array(encoder(root).features(paths))
    (file,) = (cache / "features").iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(
        {
            "zeroed": whole[:200] + bytes(len(whole) - 200),
            "cut": whole[:middle],
            "empty": b"",
            "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "longer": whole + bytes(8),
        }[damage]
    )
    tower = Counted()
    np.testing.assert_array_equal(encoder(root, tower).features(paths), first)
    assert tower.images == 5 and file.read_bytes() == whole
    assert f"{file} is damaged" in capsys.readouterr().out


def test_a_full_disk_is_said_before_anything_is_encoded(pictures, cache, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    root, paths = pictures
    tower = Counted()
    with pytest.raises(OSError, match="No space left to write .*npy; the previous file"):
        encoder(root, tower).features(paths)
    assert tower.images == 0 and list((cache / "features").iterdir()) == []


def test_data_may_move_with_its_root(pictures, cache, tmp_path):
    root, paths = pictures
    encoder(root).features(paths)
    moved = tmp_path / "elsewhere"
    shutil.move(root, moved)
    tower = Counted()
    encoder(moved, tower).features([str(moved / os.path.basename(p)) for p in paths])
    assert tower.images == 0


def test_without_a_cache_nothing_is_read_or_written(pictures, cache, monkeypatch):
    root, paths = pictures
    monkeypatch.setenv("CAUSALCLIP_NO_CACHE", "1")
    tower = Counted()
    for _ in range(2):
        encoder(root, tower).features(paths)
    assert tower.images == 10 and not cache.exists()


def test_a_killed_pass_leaves_no_file_behind(pictures, cache):
    root, paths = pictures

    def killed(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder(root, killed).features(paths)
    assert list((cache / "features").iterdir()) == []


def test_features_that_are_not_finite_name_their_image(pictures, cache):
    root, paths = pictures

    def tower(images):
        features = torch.ones(len(images), 24)
        features[-1] = torch.nan
        return features

    with pytest.raises(ValueError, match="NaN or infinity for 1 images, the first: .*1.ppm"):
        encoder(root, tower).features(paths)
    assert list((cache / "features").iterdir()) == []


def test_the_number_of_workers_and_the_batch_change_nothing(pictures, cache, monkeypatch):
    root, paths = pictures
    monkeypatch.setenv("CAUSALCLIP_NO_CACHE", "1")
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = encoder(root).features(paths, Inverted())
    other = encoder(root, num_workers=2, batch_size=3).features(paths, Inverted())
    np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)  # the training's stream is left alone


# The bound


def test_reading_features_counts_as_using_them(pictures, cache, monkeypatch):
    root, paths = pictures
    monkeypatch.setenv("CAUSALCLIP_CACHE_GB", "6e-7")  # 600 bytes: two files of 256
    one, two, three = (encoder(root).file_of([path]) for path in paths[:3])
    for age, path in enumerate(paths[:2], 1):
        encoder(root).features([path])
        os.utime(encoder(root).file_of([path]), (age, age))
    encoder(root).features(paths[:1])  # read: now the one used last
    encoder(root).features(paths[2:3])
    assert one.exists() and three.exists() and not two.exists()


def test_a_mapped_file_can_be_read_after_its_removal(pictures, cache, monkeypatch):
    root, paths = pictures
    monkeypatch.setenv("CAUSALCLIP_CACHE_GB", "0")
    first = encoder(root).features(paths[:1])
    encoder(root).features(paths[1:2])
    assert not encoder(root).file_of(paths[:1]).exists()
    expected = np.asarray(Image.open(paths[0])).transpose(2, 0, 1).mean(-1).reshape(1, -1) / 255
    np.testing.assert_allclose(first, expected, atol=1e-6)


# Chunks, as several processes encode them


def by_batch(images: torch.Tensor) -> torch.Tensor:
    """Features that depend on the batch as well."""
    return images.mean(-1).flatten(1) + images.mean()


@pytest.fixture
def chunked(pictures, tmp_path, monkeypatch):
    """A function: cache -> an encoder in chunks of one batch; and the set of all pictures."""
    monkeypatch.setattr(feature_cache, "CHUNK_IMAGES", 3)
    root, paths = pictures
    return lambda cache="chunks": encoder(root, by_batch, cache=tmp_path / cache), ImageSet(paths)


def test_chunks_put_together_are_the_bytes_of_one_process(chunked):
    make, images = chunked
    alone, parts = make("alone"), make()
    alone.features(images.paths)
    chunks = parts.chunks(images)
    assert [len(rows) for rows in chunks.rows()] == [2, 2, 1]
    for rows in reversed(chunks.missing()):
        part = ImageSet(images.paths[rows.start : rows.stop])
        parts.write_chunk(part, chunks.path(rows))
    assert chunks.missing() == []
    chunks.join()
    assert chunks.file.read_bytes() == alone.file_of(images.paths).read_bytes()
    assert parts.chunks(images) is None and not chunks.folder.exists()


def test_a_chunk_that_is_there_is_not_missing_and_the_command_removes_it(chunked, tmp_path, capsys):
    make, images = chunked
    chunks = make().chunks(images)
    first, *others = chunks.missing()
    make().write_chunk(ImageSet(images.paths[:2]), chunks.path(first))
    assert make().chunks(images).missing() == others
    assert cache_command(["list", "--folder", str(tmp_path / "chunks")]) == 0
    assert "1 unfinished" in capsys.readouterr().out
    assert cache_command(["clear", "--folder", str(tmp_path / "chunks")]) == 0
    assert list(chunks.folder.parent.iterdir()) == []


def test_batches_are_the_rows_in_order():
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    parts = list(batches(rows, 2))
    assert [len(part) for part in parts] == [2, 2, 1]
    np.testing.assert_array_equal(torch.cat(parts).numpy(), rows)


def test_the_flag_of_the_command_line_reaches_the_encoder_through_the_configuration(
    make_trainer, tmp_path, data_root, cache
):
    from causalclip.runs.configuration import cfg_from_args
    from causalclip.runs.flags import parser

    names = ["--root", str(data_root), "--trainer", "LinearProbe", "DATASET.NAME", "ImageFolder"]
    kept, unkept = (parser().parse_args([*flag, *names]) for flag in ([], ["--no-cache"]))
    assert cfg_from_args(kept).FEATURE_CACHE
    assert not cfg_from_args(unkept).FEATURE_CACHE
    assert make_trainer("LinearProbe", tmp_path).encoder.cache == cache
    assert make_trainer("LinearProbe", tmp_path, "FEATURE_CACHE", False).encoder.cache is None
