"""causalclip/data/pictures.py: which files are pictures, which cannot be read, in all data sets."""

from __future__ import annotations

import os

import numpy as np
import pytest
import replicas
from dassl.data import DatasetWrapper
from PIL import Image
from replicas import fill, paths

from causalclip.data.annotations import read_lines
from causalclip.data.pictures import find_pictures, unreadable
from causalclip.predict.pictures import find_images, open_image


def broken(root):
    """Fill the folder `mine` below the root; return its broken test images."""
    for part in ("train", "test"):
        fill(root / "mine" / part)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = root / "mine" / "test" / "None" / "whole.jpg"
    Image.fromarray(pixels).save(path)
    bad = {
        "truncated.jpg": path.read_bytes()[:-2000],
        "text.jpg": b"not an image",
        "empty.png": b"",
    }
    return [replicas.put(path.with_name(name), content) for name, content in bad.items()]


def test_an_image_of_too_many_pixels_is_one_that_skip_leaves_out(tmp_path, monkeypatch):
    replicas.put_images(tmp_path, ["large.png"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    (reason,) = unreadable([str(tmp_path / "large.png")]).values()
    assert reason.startswith("DecompressionBombError")


def test_skip_leaves_broken_images_out_and_counts_them(load, tmp_path, capsys):
    bad = broken(tmp_path)
    dataset = load("ImageFolder", tmp_path, PATH="mine", UNREADABLE="skip")
    assert not set(paths(dataset.test)) & {str(p) for p in bad}
    assert len(dataset.test) == 33 + 1  # the whole image stays
    empty, text, truncated = dataset.left_out["first"]
    assert empty.startswith("test/None/empty.png: UnidentifiedImageError")
    assert "cannot identify" in text and "truncated" in truncated
    assert "Left out 3 files: test/None/empty.png: " in capsys.readouterr().out


def test_error_is_the_default_and_names_the_file_on_reading(load, tmp_path):
    from dassl.config import get_cfg_default

    bad = broken(tmp_path)
    dataset = load("ImageFolder", tmp_path, PATH="mine")
    wrapper = DatasetWrapper(get_cfg_default(), dataset.test)
    (index,) = [i for i, item in enumerate(dataset.test) if item.impath == str(bad[0])]
    with pytest.raises(OSError, match="truncated"):
        wrapper[index]


def test_an_unknown_policy_is_refused(load, tmp_path):
    fill(tmp_path / "mine")
    with pytest.raises(ValueError, match="UNREADABLE must be 'error' or 'skip', got 'ignore'"):
        load("ImageFolder", tmp_path, PATH="mine", UNREADABLE="ignore")


def test_predict_finds_the_pictures_that_training_does(load, tmp_path):
    fill(tmp_path / "mine")
    for stray in (
        ".ipynb_checkpoints/a.jpg",
        "zebra/__MACOSX/a.jpg",
        "zebra/._1.jpg",
        "zebra/a.txt",
    ):
        replicas.put(tmp_path / "mine" / stray)
    replicas.put_images(tmp_path / "mine" / "zebra" / "far" / "away", ["a.gif", "b.JFIF"])
    (tmp_path / "mine" / "zebra" / "loop").symlink_to(tmp_path / "mine")
    (tmp_path / "mine" / "None" / "more").symlink_to(replicas.put(tmp_path / "x" / "b.jpg").parent)
    dataset = load("ImageFolder", tmp_path, PATH="mine")
    trained = paths([*dataset.train_x, *dataset.val, *dataset.test])
    assert len(trained) == 10 + 11 + 12 + 3
    assert find_images([tmp_path / "mine"]) == sorted(trained)


def test_links_that_lead_in_a_circle_are_followed_once(tmp_path):
    for name, other in (("x", "y"), ("y", "x")):
        replicas.put(tmp_path / name / "a.jpg")
        (tmp_path / name / "link").symlink_to(tmp_path / other)
    found = find_pictures(tmp_path / "x")
    assert found.pictures == ["a.jpg", "link/a.jpg"]
    assert found.left_out == {"link/link": "a link to a folder above it"}


def test_a_pipe_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="a.jpg must be a regular file or a folder"):
        find_images([tmp_path / "a.jpg"])
    assert open_image(tmp_path / "a.jpg").reason == "no regular file"
    with pytest.raises(ValueError, match=r"no image in the .* a.jpg \(no regular file\)"):
        find_images([tmp_path])


def test_a_text_file_may_have_a_byte_order_mark_and_is_no_utf16(tmp_path):
    path = tmp_path / "classnames.txt"
    path.write_text("n01 cat\n\nn02 dog\n", encoding="utf-8-sig")
    assert read_lines(path) == ["n01 cat", "n02 dog"]
    path.write_text("n01 cat", encoding="utf-16")
    with pytest.raises(ValueError, match="classnames.txt must be UTF-8 text, got UTF-16; save it"):
        read_lines(path)
