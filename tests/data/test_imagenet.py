"""datasets/imagenet.py: replicas loaded as CoOp loads them, and the stored list of files."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import pytest
import replicas
from test_recognition import parts

from causalclip.data.listing import FolderItems
from causalclip.datasets import imagenet

GOLDEN = json.loads(Path(__file__).with_name("golden_coop.json").read_text())["replicas"]
VARIANTS = ["ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"]


@pytest.mark.parametrize("name", ["ImageNet", *VARIANTS])
def test_a_replica_loads_as_in_coop(load, tmp_path, name):
    replicas.LAYOUTS[name](tmp_path)
    for again in (False, True):  # listed and drawn, then read from what was stored
        random.seed(5)
        dataset = load(name, tmp_path, seed=5, NUM_SHOTS=2)
        assert parts(dataset, tmp_path) == GOLDEN[name]["parts"]
        assert again or random.random() == GOLDEN[name]["after"]
    assert dataset.val is (dataset.test if name == "ImageNet" else None)


def test_the_order_of_the_file_system_does_not_matter(load, tmp_path, monkeypatch):
    replicas.imagenet(tmp_path)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return self.entries

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    random.seed(5)
    dataset = load("ImageNet", tmp_path, seed=5, NUM_SHOTS=2)
    assert parts(dataset, tmp_path) == GOLDEN["ImageNet"]["parts"]


def test_only_changed_folders_are_listed_again(load, tmp_path, monkeypatch):
    replicas.imagenet(tmp_path)
    load("ImageNet", tmp_path)
    listed, plain = [], imagenet.image_names
    monkeypatch.setattr(imagenet, "image_names", lambda f: listed.append(f.name) or plain(f))
    before = load("ImageNet", tmp_path)
    assert listed == []
    replicas.put(tmp_path / "imagenet" / "images" / "train" / "n02012849" / "new.JPEG")
    after = load("ImageNet", tmp_path)
    assert listed == ["n02012849"] and len(after.train_x) == len(before.train_x) + 1


def test_two_classes_of_one_name_are_said_not_refused(load, tmp_path, capsys):
    replicas.imagenet(tmp_path)
    assert load("ImageNet", tmp_path).num_classes == 4
    assert "Several classes share a name" in capsys.readouterr().out


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_says_which_settings_have_no_effect(load, tmp_path, capsys, name):
    replicas.LAYOUTS[name](tmp_path)
    dataset = load(name, tmp_path, NUM_SHOTS=16, SUBSAMPLE_CLASSES="new")
    said = capsys.readouterr().out
    assert f"{name} is for testing: DATASET.NUM_SHOTS 16 has no effect" in said
    assert "DATASET.SUBSAMPLE_CLASSES has no effect" in said
    assert len(dataset.test) == len(dataset.train_x) > 4 and dataset.val is None


def test_a_variant_without_its_copy_of_the_names_takes_imagenets(load, tmp_path):
    replicas.imagenet(tmp_path)
    replicas.LAYOUTS["ImageNetA"](tmp_path)
    (tmp_path / "imagenet-adversarial" / "classnames.txt").unlink()
    assert load("ImageNetA", tmp_path).classnames == ["crane bird", "sunglasses"]


# Bad input


def test_missing_names_say_how_to_get_them(load, tmp_path):
    replicas.LAYOUTS["ImageNetA"](tmp_path)
    (tmp_path / "imagenet-adversarial" / "classnames.txt").unlink()
    with pytest.raises(FileNotFoundError, match="data download ImageNet"):
        load("ImageNetA", tmp_path)


def test_val_without_class_folders_is_explained(load, tmp_path):
    replicas.imagenet(tmp_path)
    val = tmp_path / "imagenet" / "images" / "val"
    shutil.rmtree(val)
    replicas.put_images(val, ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"])
    with pytest.raises(FileNotFoundError, match="one folder a class, it holds 2 files; sort"):
        load("ImageNet", tmp_path)


@pytest.mark.parametrize(("name", "place"), [("ImageNet", "images/val"), ("ImageNetV2", "")])
def test_a_missing_class_folder_is_named_instead_of_shifting_labels(load, tmp_path, name, place):
    replicas.LAYOUTS[name](tmp_path)
    folder = Path(load(name, tmp_path).image_dir) / Path(place).name
    gone = sorted(p for p in folder.iterdir() if p.is_dir())[1]
    shutil.rmtree(gone)
    with pytest.raises(ValueError, match=f"1 are in one place only: {gone.name}"):
        load(name, tmp_path)


def test_an_empty_class_folder_is_named(load, tmp_path):
    replicas.imagenet(tmp_path)
    folder = tmp_path / "imagenet" / "images" / "train" / "n02012849"
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ValueError, match="every class must have an image, .*n02012849 has none"):
        load("ImageNet", tmp_path)


def test_a_folder_without_a_name_is_named(load, tmp_path):
    replicas.imagenet(tmp_path)
    for part in ("train", "val"):
        replicas.put(tmp_path / "imagenet" / "images" / part / "n99999999" / "a.JPEG")
    with pytest.raises(ValueError, match="n99999999 must have a line in classnames.txt"):
        load("ImageNet", tmp_path)


# The compact list of items


def test_folder_items_are_the_list_they_stand_for(tmp_path):
    names = {"a": ["1.jpg", "22.jpg"], "b": [], "c": [os.fsdecode(b"caf\xe9.jpg")]}
    items, plain = FolderItems(), []
    for label, (folder, files) in enumerate(names.items()):
        items.add(f"/x/{folder}", files, label, folder.upper())
        plain += [(f"/x/{folder}/{file}", label, folder.upper()) for file in files]

    def facts(found):
        return [(item.impath, item.label, item.classname) for item in found]

    assert facts(items) == plain and len(items) == 3
    assert facts(items[i] for i in range(-3, 3)) == plain * 2
    assert facts(items[::-1]) == plain[::-1]
    assert facts(pickle.loads(pickle.dumps(items))) == plain
    with pytest.raises(IndexError):
        items[3]
    assert not FolderItems()
