"""datasets/table.py: images that a CSV or Parquet table names."""

from __future__ import annotations

import pytest
import replicas
from replicas import CLASSES, paths, table_rows, write_table


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


def from_one(rows):
    for row in rows:
        row["label"] = 1 + CLASSES.index(row["classname"])


@pytest.mark.parametrize(
    ("edit", "drop", "message"),
    [
        (change(3, split="dev"), (), "row 4: split must be train, val or test, got 'dev'"),
        (change(2, classname=" "), (), "row 3: classname must be text, got ' '"),
        (lambda rows: [r.update(label="x") for r in rows], (), "row 1: label must be a number"),
        (lambda rows: [r.update(label="9" * 9) for r in rows], (), "row 1: label must be a number"),
        (change(4, path="images//None/0.jpg"), (), "row 5: path must be below the table's folder"),
        (change(4, path="/etc/passwd"), (), "row 5: path must be below the table's folder"),
        (
            lambda rows: None,
            ("split",),
            "lacks the column split: it has path, classname; needed are path, split",
        ),
        (
            lambda rows: None,
            ("classname",),
            "lacks the column classname or label: it has path, split",
        ),
        (change(9, path="images/None/0.jpg"), (), "an image must be listed once"),
        (from_one, (), "mine.csv: labels start at 1; subtract 1, they count from 0"),
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"path,split,classname\na.jpg,train,caf\xe9\n", "must be a CSV table in UTF-8"),
        ("a.csv", b"", "must be a CSV table in UTF-8, got No columns"),
        ("a.csv", "path,split\n".encode("utf-16"), 'got UTF-16; save it as "UTF-8"'),
        ("a.parquet", b"PAR1 and then nothing", "is damaged or no Parquet table"),
    ],
)
def test_a_table_that_is_damaged_or_no_utf8_is_named(load, tmp_path, name, content, message):
    replicas.put(tmp_path / name, content)
    with pytest.raises(ValueError, match=f"{name} {message}|{name} must .* {message}"):
        load("Table", tmp_path, TABLE=name)


def test_a_table_as_windows_writes_it_is_read(load, tmp_path):
    write_table(tmp_path, list(table_rows()), drop=("domain",))
    text = (tmp_path / "mine.csv").read_text().replace("/", "\\")
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8-sig")
    dataset = load("Table", tmp_path, TABLE="mine.csv")
    assert str(tmp_path / "images" / "None" / "0.jpg") in paths(dataset.train_x)


@pytest.mark.parametrize(
    ("table", "error"),
    [("", "must name a .csv or .parquet"), ("no.csv", "must be an existing file")],
)
def test_a_table_that_is_not_there_is_named(load, tmp_path, table, error):
    with pytest.raises((ValueError, FileNotFoundError), match=f"DATASET.TABLE {error}"):
        load("Table", tmp_path, TABLE=table)
