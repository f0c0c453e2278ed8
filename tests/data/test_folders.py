"""datasets/folders.py: folders and split files of users, as in docs/add_data.md."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import replicas
from replicas import CLASSES, fill, paths, table_rows, write_table

from causalclip import plugin

# ImageFolder


def test_class_folders_are_split_once_from_their_names_alone(load, tmp_path):
    for place in ("one", "two"):
        fill(tmp_path / place)
    random.seed(1)
    one = load("ImageFolder", tmp_path, seed=1, PATH="one")
    random.seed(2)
    two = load("ImageFolder", tmp_path, seed=2, PATH="two")
    for part in ("train_x", "val", "test"):
        a = [os.path.relpath(p, tmp_path / "one") for p in paths(getattr(one, part))]
        assert a == [os.path.relpath(p, tmp_path / "two") for p in paths(getattr(two, part))]
    assert (len(one.train_x), len(one.val), len(one.test)) == (5 + 6 + 6, 2 + 2 + 2, 3 + 3 + 4)
    assert one.classnames == CLASSES
    assert not set(paths(one.train_x)) & set(paths(one.test))


def test_part_folders_are_taken_as_they_are(load, tmp_path):
    for part, count in (("train", 6), ("val", 3), ("test", 4)):
        fill(tmp_path / "mine" / part, count)
    dataset = load("ImageFolder", tmp_path, PATH=str(tmp_path / "mine"))
    assert [len(x) for x in (dataset.train_x, dataset.val, dataset.test)] == [21, 12, 15]
    assert all("/val/" in p for p in paths(dataset.val))
    assert not (tmp_path / "mine" / "split_causalclip.json").exists()


def test_without_val_a_fifth_of_train_validates(load, tmp_path):
    for part in ("train", "test"):
        fill(tmp_path / "mine" / part)
    dataset = load("ImageFolder", tmp_path, PATH="mine")
    assert len(dataset.val) == 6 and len(dataset.train_x) == 27
    assert all("/train/" in p for p in paths(dataset.val))


def test_few_shots_and_halves_work_and_leave_no_folder_among_the_classes(load, tmp_path, cache):
    fill(tmp_path / "mine")
    for _ in range(2):
        dataset = load("ImageFolder", tmp_path, PATH="mine", NUM_SHOTS=1, SUBSAMPLE_CLASSES="base")
        assert len(dataset.train_x) == 2 and dataset.classnames == CLASSES[:2]
    assert set(os.listdir(tmp_path / "mine")) == {*CLASSES, "split_causalclip.json"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "empty").mkdir(), "every class in .* must have an image, none in: empty"),
        (
            lambda f: replicas.put(f / "one" / "a.jpg"),
            "class 'one' has 1 images; train, val and test need 4",
        ),
        (lambda f: fill_class(f / "red panda"), "labels 1 and 2 are both 'red panda'"),
    ],
)
def test_bad_class_folders_are_refused(load, tmp_path, change, message):
    fill(tmp_path / "mine")
    change(tmp_path / "mine")
    with pytest.raises(ValueError, match=message):
        load("ImageFolder", tmp_path, PATH="mine")


@pytest.mark.parametrize(
    ("val", "test"),
    [("val", "test"), ("valid", "test"), ("Validation", "TEST"), ("dev", "Testing")],
)
def test_pictures_in_sub_folders_of_any_format_are_used_and_the_rest_is_counted(
    load, tmp_path, capsys, val, test
):
    suffixes = "jpg JPEG jfif png ppm bmp pgm tif tiff webp avif gif".split()
    for part in ("train", val, test):
        for label in ("cat", "dog"):
            files = [f"2024/{i}.{suffix}" for i, suffix in enumerate(suffixes)]
            replicas.put_images(tmp_path / "mine" / part / label, ["a.jpg", *files])
    train = tmp_path / "mine" / "train"
    for hidden in (".ipynb_checkpoints/a.jpg", "__MACOSX/a.jpg", "cat/.DS_Store"):
        replicas.put(train / hidden)
    replicas.put(train / "cat" / "notes.txt")
    (train / "cat" / "loop").symlink_to(train)
    (train / "dog" / "more").symlink_to(replicas.put(tmp_path / "far" / "b.jpg").parent)
    os.mkfifo(train / "cat" / "pipe.jpg")
    dataset = load("ImageFolder", tmp_path, PATH="mine")
    assert [len(x) for x in (dataset.train_x, dataset.val, dataset.test)] == [27, 26, 26]
    assert dataset.classnames == ["cat", "dog"]
    assert str(train / "dog" / "more" / "b.jpg") in paths(dataset.train_x)
    first = [
        "train/.ipynb_checkpoints: hidden",
        "train/__MACOSX: hidden",
        "train/cat/.DS_Store: hidden",
        "train/cat/loop: a link to a folder above it",
        "train/cat/notes.txt: not a picture's suffix",
    ]
    assert dataset.left_out == {"count": 6, "first": first}
    assert f"Left out 6 files: {', '.join(first)}, ..." in capsys.readouterr().out


def test_pictures_added_after_the_split_do_not_move_old_ones_and_are_counted(load, tmp_path):
    fill(tmp_path / "mine")
    before = load("ImageFolder", tmp_path, PATH="mine")
    assert before.left_out == {"count": 0, "first": []}
    replicas.put(tmp_path / "mine" / "zebra" / "later.jpg")
    after = load("ImageFolder", tmp_path, PATH="mine")
    assert paths(after.train_x) == paths(before.train_x)
    (first,) = after.left_out["first"]
    assert first.startswith("zebra/later.jpg: in no class folder, or added after split_causalclip")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ("train val", "must hold train/ and test/ .* it holds train, val"),
        ("train valid bus", "must hold train/ and test/ .* it holds train, valid"),
        ("train", "must hold train/ and test/ .* it holds train"),
        ("test", "must hold train/ and test/ .* it holds test"),
        ("train test val valid", "one folder a part, it holds test, train, val, valid"),
    ],
)
def test_parts_without_train_or_test_are_not_read_as_classes(load, tmp_path, folders, message):
    for part in folders.split():
        fill(tmp_path / "mine" / part)
    with pytest.raises(ValueError, match=message):
        load("ImageFolder", tmp_path, PATH="mine")


def test_a_class_may_be_called_train(load, tmp_path):
    for name in ("train", "car"):
        fill_class(tmp_path / "mine" / name)
    assert load("ImageFolder", tmp_path, PATH="mine").classnames == ["car", "train"]


def test_formats_that_pillow_cannot_read_are_named(load, tmp_path):
    for name in ("cat", "dog"):
        replicas.put_images(tmp_path / "mine" / name, ["1.HEIC", "2.heic", "raw.dng"])
    with pytest.raises(ValueError, match="none in: cat, dog; it holds 2 .heic, 1 .dng; .*convert"):
        load("ImageFolder", tmp_path, PATH="mine")


def test_a_class_with_fewer_images_than_shots_is_said(load, tmp_path, capsys):
    fill(tmp_path / "mine")
    for _ in range(2):  # drawn, and read again
        assert len(load("ImageFolder", tmp_path, PATH="mine", NUM_SHOTS=6).train_x) == 5 + 6 + 6
        assert "Fewer training images than NUM_SHOTS 6: 'None' has 5\n" in capsys.readouterr().out


def fill_class(folder):
    replicas.put_images(folder, (f"{n}.jpg" for n in range(10)))


def test_a_test_class_that_is_not_trained_is_refused(load, tmp_path):
    for part in ("train", "test"):
        fill(tmp_path / "mine" / part)
    replicas.put(tmp_path / "mine" / "test" / "yak" / "a.jpg")
    with pytest.raises(ValueError, match="must hold classes of train/ only, got yak"):
        load("ImageFolder", tmp_path, PATH="mine")


# SplitJSON


def write_split(folder, **changes):
    split = {
        part: [[f"{name}/{n}.jpg", y, name] for y, name in enumerate(CLASSES) for n in numbers]
        for part, numbers in (("train", range(5)), ("val", range(5, 7)), ("test", range(7, 10)))
    }
    replicas.put(folder / "split.json", json.dumps({**split, **changes}))


def test_a_split_file_is_taken_as_it_is(load, tmp_path):
    fill(tmp_path / "mine")
    write_split(tmp_path / "mine")
    dataset = load("SplitJSON", tmp_path, PATH="mine")
    assert [len(x) for x in (dataset.train_x, dataset.val, dataset.test)] == [15, 6, 9]


@pytest.mark.parametrize(
    ("part", "row", "message"),
    [
        ("test", ["zebra/0.jpg", 2, "zebra"], "once, .*zebra/0.jpg' is in train and in test"),
        ("test", ["/zebra\\0.jpg", 2, "zebra"], "once, .*zebra/0.jpg' is in train and in test"),
        ("test", ["link/0.jpg", 2, "zebra"], "once, .*link/0.jpg' is in train and in test"),
        ("test", ["zebra/../zebra/0.jpg", 2, "zebra"], r"test\[9\] .* in its one spelling"),
        ("test", ["zebra/9.jpg", 9_999_999, "x"], r"9999997 have none: 3 \(no name\), 4"),
        ("train", ["zebra/9.jpg", 3, "zebra"], "labels 2 and 3 are both 'zebra'"),
        ("test", ["pipe.jpg", 2, "zebra"], r"1 of the 31 .* missing \(or no regular files\)"),
    ],
)
def test_a_split_of_your_own_shares_neither_images_nor_names(load, tmp_path, part, row, message):
    fill(tmp_path / "mine")
    write_split(tmp_path / "mine")
    split = json.loads((tmp_path / "mine" / "split.json").read_text())
    split[part].append(row)
    (tmp_path / "mine" / "link").symlink_to("zebra")
    os.mkfifo(tmp_path / "mine" / "pipe.jpg")
    write_split(tmp_path / "mine", **split)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load("SplitJSON", tmp_path, PATH="mine")


def test_labels_that_start_at_1_are_said_to(load, tmp_path):
    fill(tmp_path / "mine")
    row = ["zebra/0.jpg", 1, "zebra"]
    write_split(tmp_path / "mine", train=[row], val=[], test=[["None/0.jpg", 2, "None"]])
    with pytest.raises(ValueError, match="labels start at 1; subtract 1, they count from 0"):
        load("SplitJSON", tmp_path, PATH="mine")


def test_a_missing_split_file_is_named(load, tmp_path):
    fill(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="DATASET.SPLIT must be a file in .*, got .*x.json"):
        load("SplitJSON", tmp_path, PATH="mine", SPLIT="x.json")


# The YAML files and the Python file of docs/add_data.md


def blocks(language):
    text = (Path(__file__).parents[2] / "docs" / "add_data.md").read_text(encoding="utf-8")
    return [part.split("```")[0] for part in text.split(f"```{language}\n")[1:]]


def yaml_of_docs(name):
    (found,) = [block for block in blocks("yaml") if f"NAME: {name}\n" in block]
    return found


@pytest.mark.parametrize("name", ["ImageFolder", "SplitJSON", "Table"])
def test_the_yaml_of_the_docs_loads(tmp_path, name):
    from dassl.config import get_cfg_default
    from dassl.data.datasets import build_dataset

    fill(tmp_path / "my_photos")
    if name == "SplitJSON":
        write_split(tmp_path / "my_photos")
    if name == "Table":
        write_table(tmp_path / "my_photos", list(table_rows()), "table.csv", drop=("domain",))
    cfg = plugin.extend_cfg(get_cfg_default())
    path = replicas.put(tmp_path / "my.yaml", yaml_of_docs(name))
    assert len(path.read_text().splitlines()) <= 5
    cfg.merge_from_file(str(path))
    cfg.DATASET.ROOT = str(tmp_path)
    assert build_dataset(cfg).classnames == CLASSES


def test_the_python_file_of_the_docs_registers_and_loads(load, tmp_path):
    (code,) = blocks("python")
    exec(compile(code, "docs/add_data.md", "exec"), {"__name__": "my_package.my_data"})
    fill(tmp_path / "my_photos")
    dataset = load("MyPhotos", tmp_path, NUM_SHOTS=2)
    assert dataset.classnames == CLASSES and len(dataset.train_x) == 6
