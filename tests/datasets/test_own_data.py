"""Your own data, each way as docs/datasets.md shows it, and images that are broken."""

from __future__ import annotations

import csv
import json
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import replicas
from dassl.data import DatasetWrapper
from PIL import Image

from causalclip import plugin
from causalclip.data.unreadable import unreadable

CLASSES = ["None", "red_panda", "zebra"]


def paths(items):
    return [item.impath for item in items]


def fill(folder, count=10):
    for i, name in enumerate(CLASSES):
        replicas.put_images(folder / name, (f"{n}.jpg" for n in range(count + i)))


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


def test_images_added_later_do_not_move_old_ones(load, tmp_path):
    fill(tmp_path / "mine")
    before = load("ImageFolder", tmp_path, PATH="mine")
    replicas.put(tmp_path / "mine" / "zebra" / "later.jpg")
    after = load("ImageFolder", tmp_path, PATH="mine")
    assert paths(after.train_x) == paths(before.train_x)


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
        (lambda f: replicas.put(f / "one" / "a.jpg"), "class 'one' must have enough images"),
        (lambda f: fill_class(f / "red panda"), "labels 1 and 2 are both 'red panda'"),
    ],
)
def test_bad_class_folders_are_refused(load, tmp_path, change, message):
    fill(tmp_path / "mine")
    change(tmp_path / "mine")
    with pytest.raises(ValueError, match=message):
        load("ImageFolder", tmp_path, PATH="mine")


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
    ],
)
def test_a_split_of_your_own_shares_neither_images_nor_names(load, tmp_path, part, row, message):
    fill(tmp_path / "mine")
    write_split(tmp_path / "mine")
    split = json.loads((tmp_path / "mine" / "split.json").read_text())
    split[part].append(row)
    (tmp_path / "mine" / "link").symlink_to("zebra")
    write_split(tmp_path / "mine", **split)
    with pytest.raises(ValueError, match=message):
        load("SplitJSON", tmp_path, PATH="mine")


def test_a_missing_split_file_is_named(load, tmp_path):
    fill(tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="DATASET.SPLIT must be a file in .*, got .*x.json"):
        load("SplitJSON", tmp_path, PATH="mine", SPLIT="x.json")


# Table


def table_rows(domains=("",)):
    for domain in domains:
        for name in CLASSES:
            for n, part in enumerate(["train"] * 5 + ["val"] * 2 + ["test"] * 3):
                path = os.path.join("images", domain, name, f"{n}.jpg")
                yield {"path": path, "classname": name, "split": part, "domain": domain}


def write_table(folder, rows, name="mine.csv", *, drop=()):
    rows = [{k: v for k, v in row.items() if k not in drop} for row in rows]
    for row in rows:
        if "path" in row:
            replicas.put(folder / row["path"])
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(folder / name)
        return
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_a_table_is_read_and_none_is_a_class(load, tmp_path, name):
    write_table(tmp_path, list(table_rows()), name, drop=("domain",))
    dataset = load("Table", tmp_path, TABLE=name)
    assert dataset.classnames == CLASSES
    assert [len(x) for x in (dataset.train_x, dataset.val, dataset.test)] == [15, 6, 9]


def test_labels_in_a_table_order_the_classes(load, tmp_path):
    order = {"zebra": 0, "None": 1, "red_panda": 2}
    rows = [{**row, "label": order[row["classname"]]} for row in table_rows()]
    write_table(tmp_path, rows, drop=("domain",))
    assert load("Table", tmp_path, TABLE="mine.csv").classnames == ["zebra", "None", "red_panda"]


def test_a_label_column_of_words_is_the_class_name(load, tmp_path):
    rows = [{**row, "label": row["classname"]} for row in table_rows()]
    write_table(tmp_path, rows, drop=("domain", "classname"))
    assert load("Table", tmp_path, TABLE="mine.csv").classnames == CLASSES


def test_the_domains_of_a_table_are_sources_and_targets(load, tmp_path):
    write_table(tmp_path, list(table_rows(["ink", "chalk"])))
    case = {"SOURCE_DOMAINS": ["ink"], "TARGET_DOMAINS": ["chalk"]}
    dataset = load("Table", tmp_path, TABLE="mine.csv", **case)
    assert len(dataset.train_x) == 15 and all("/ink/" in p for p in paths(dataset.train_x))
    assert len(dataset.test) == 9 and all("/chalk/" in p for p in paths(dataset.test))
    assert {i.domain for i in dataset.train_x} == {0} and {i.domain for i in dataset.test} == {1}
    assert len(load("Table", tmp_path, TABLE="mine.csv").test) == 18
    with pytest.raises(ValueError, match="must be among chalk, ink .* got 'neon'"):
        load("Table", tmp_path, TABLE="mine.csv", **{**case, "TARGET_DOMAINS": ["neon"]})


def change(row, **values):
    return lambda rows: rows[row].update(values)


def keep(*parts):
    def edit(rows):
        rows[:] = [row for row in rows if row["split"] in parts]

    return edit


@pytest.mark.parametrize(
    ("edit", "drop", "message"),
    [
        (change(3, split="dev"), (), "row 4: split must be train, val or test, got 'dev'"),
        (change(2, classname=" "), (), "row 3: classname must be text, got ' '"),
        (lambda rows: [r.update(label="x") for r in rows], (), "row 1: label must be a number"),
        (lambda rows: [r.update(label="9" * 9) for r in rows], (), "row 1: label must be a number"),
        (change(4, path="images//None/0.jpg"), (), "row 5: path must be below the table's folder"),
        (change(4, path="/etc/passwd"), (), "row 5: path must be below the table's folder"),
        (lambda rows: None, ("split",), "must have the column split, got path"),
        (lambda rows: None, ("classname",), "must have the column classname or label"),
        (change(9, path="images/None/0.jpg"), (), "an image must be listed once"),
        (keep("train", "val"), (), "must have rows with split 'test'"),
    ],
)
def test_a_malformed_table_names_row_and_column(load, tmp_path, edit, drop, message):
    rows = list(table_rows())
    edit(rows)
    write_table(tmp_path, rows, drop=("domain", *drop))
    with pytest.raises(ValueError, match=message):
        load("Table", tmp_path, TABLE="mine.csv")


def test_a_gap_in_a_parquet_table_is_named_by_its_row(load, tmp_path):
    rows = list(table_rows())
    rows[2]["classname"] = None
    write_table(tmp_path, rows, "mine.parquet", drop=("domain",))
    with pytest.raises(ValueError, match="row 3: classname must be text, got ''"):
        load("Table", tmp_path, TABLE="mine.parquet")


def test_missing_images_of_a_table_are_counted(load, tmp_path):
    write_table(tmp_path, list(table_rows()), drop=("domain",))
    (tmp_path / "images" / "zebra" / "3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 30 images of .*mine.csv are missing"):
        load("Table", tmp_path, TABLE="mine.csv")


@pytest.mark.parametrize("content", [b"path,split,classname\na.jpg,train,caf\xe9\n", b""])
def test_a_table_that_is_no_utf8_csv_is_named(load, tmp_path, content):
    replicas.put(tmp_path / "mine.csv", content)
    with pytest.raises(ValueError, match="mine.csv must be a CSV table in UTF-8"):
        load("Table", tmp_path, TABLE="mine.csv")


@pytest.mark.parametrize(
    ("table", "error"),
    [("", "must name a .csv or .parquet"), ("no.csv", "must be an existing file")],
)
def test_a_table_that_is_not_there_is_named(load, tmp_path, table, error):
    with pytest.raises((ValueError, FileNotFoundError), match=f"DATASET.TABLE {error}"):
        load("Table", tmp_path, TABLE=table)


# The YAML files and the Python file of docs/datasets.md


def blocks(language):
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
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
    exec(compile(code, "docs/datasets.md", "exec"), {"__name__": "my_package.my_data"})
    fill(tmp_path / "my_photos")
    dataset = load("MyPhotos", tmp_path, NUM_SHOTS=2)
    assert dataset.classnames == CLASSES and len(dataset.train_x) == 6


# Files that are no images


def broken(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = folder / "None" / "whole.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    bad = {
        "truncated.jpg": path.read_bytes()[:-2000],
        "text.jpg": b"not an image",
        "empty.png": b"",
    }
    return [replicas.put(folder / "None" / name, content) for name, content in bad.items()]


def test_unreadable_images_are_found_with_their_reason(tmp_path):
    bad = broken(tmp_path)
    found = unreadable([str(p) for p in (tmp_path / "None").iterdir()])
    assert set(found) == {str(p) for p in bad}
    assert "truncated" in found[str(bad[0])] and "cannot identify" in found[str(bad[1])]


def test_an_image_of_too_many_pixels_is_one_that_skip_leaves_out(tmp_path, monkeypatch):
    replicas.put_images(tmp_path, ["large.png"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    (reason,) = unreadable([str(tmp_path / "large.png")]).values()
    assert reason.startswith("DecompressionBombError")


def test_skip_leaves_broken_images_out_and_counts_them(load, tmp_path, capsys):
    for part in ("train", "test"):
        fill(tmp_path / "mine" / part)
    bad = broken(tmp_path / "mine" / "test")
    dataset = load("ImageFolder", tmp_path, PATH="mine", UNREADABLE="skip")
    assert not set(paths(dataset.test)) & {str(p) for p in bad}
    assert len(dataset.test) == 33 + 1  # the whole image stays
    assert "Left out 3 unreadable of 70 images" in capsys.readouterr().out


def test_error_is_the_default_and_names_the_file_on_reading(load, tmp_path):
    from dassl.config import get_cfg_default

    for part in ("train", "test"):
        fill(tmp_path / "mine" / part)
    bad = broken(tmp_path / "mine" / "test")
    dataset = load("ImageFolder", tmp_path, PATH="mine")
    wrapper = DatasetWrapper(get_cfg_default(), dataset.test)
    (index,) = [i for i, item in enumerate(dataset.test) if item.impath == str(bad[0])]
    with pytest.raises(OSError, match="truncated"):
        wrapper[index]


def test_an_unknown_policy_is_refused(load, tmp_path):
    fill(tmp_path / "mine")
    with pytest.raises(ValueError, match="UNREADABLE must be 'error' or 'skip', got 'ignore'"):
        load("ImageFolder", tmp_path, PATH="mine", UNREADABLE="ignore")
