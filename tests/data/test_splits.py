"""causalclip/data/splits.py: split files as users have them, and the halves of the classes."""

from __future__ import annotations

import json
import shutil

import pytest
from replicas import edit_split

from causalclip.data import listing, splits


@pytest.mark.parametrize(("n_classes", "base"), [(7, 3), (5, 2), (65, 32), (345, 172), (10, 5)])
def test_rounded_down_the_base_classes_are_those_of_the_published_code(n_classes, base):
    """PACS, VLCS, OfficeHome, DomainNet, TerraIncognita: int(0.5 * n) of CLIP-ICM's code."""
    items = [listing.listed("/x/a.jpg", y, classname=str(y)) for y in range(n_classes)]
    kept = {
        half: splits.subsample_classes(items, subsample=half, rounding="floor")[0]
        for half in ("base", "new")
    }
    assert len(kept["base"]) == base == int(0.5 * n_classes)
    names = [item.classname for item in kept["base"] + kept["new"]]
    assert names == [str(y) for y in range(n_classes)]
    assert [item.label for item in kept["new"]] == list(range(n_classes - base))


def test_every_kind_of_set_rounds_as_the_settings_say(load, small, few_shapes):
    floor = {"SUBSAMPLE_ROUNDING": "floor", "SUBSAMPLE_CLASSES": "base"}
    assert load("Caltech101", small, **floor).classnames == ["face", "leopard"]
    sources = {"SOURCE_DOMAINS": ["flat"], "TARGET_DOMAINS": ["neon"]}
    shapes = load("CausalShapes", few_shapes, **sources)
    base = load("CausalShapes", few_shapes, **sources, **floor)
    assert len(base.classnames) == len(shapes.classnames) // 2
    with pytest.raises(ValueError, match="ROUNDING must be 'ceil' or 'floor', got 'up'"):
        load("Caltech101", small, SUBSAMPLE_ROUNDING="up", SUBSAMPLE_CLASSES="base")


def test_halves_keep_the_domain():
    items = [listing.listed("/x/a.jpg", y, domain=3, classname=str(y)) for y in range(4)]
    (new,) = splits.subsample_classes(items, subsample="new")
    assert [(i.label, i.domain, i.classname) for i in new] == [(0, 3, "2"), (1, 3, "3")]


@pytest.mark.parametrize(
    ("subsample", "labels", "message"),
    [
        ("novel", [0, 1], "SUBSAMPLE_CLASSES must be 'all', 'base' or 'new', got 'novel'"),
        ("base", [0, 0], "need 2 classes or more, got 1"),
    ],
)
def test_bad_halves_are_refused(subsample, labels, message):
    items = [listing.listed("/x/a.jpg", y) for y in labels]
    with pytest.raises(ValueError, match=message):
        splits.subsample_classes(items, subsample=subsample)


# Split files


def test_a_written_split_reads_back_as_coop_writes_it(small, tmp_path):
    images = small / "caltech-101" / "101_ObjectCategories"
    parts = splits.read_split(small / "caltech-101" / "split_zhou_Caltech101.json", images)
    copy = splits.write_split(*parts, tmp_path / "copy.json", images)
    original = json.loads((small / "caltech-101" / "split_zhou_Caltech101.json").read_text())
    assert json.loads(copy.read_text()) == original


def test_missing_images_are_counted_and_the_first_five_named(load, small):
    shutil.rmtree(small / "caltech-101" / "101_ObjectCategories" / "face")
    with pytest.raises(FileNotFoundError, match="13 of the 65 images") as error:
        load("Caltech101", small)
    assert str(error.value).count("\n") == 5 and "face/train_0.jpg" in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("val"), "lists train, val and test"),
        (lambda s: s["test"].append(["x.jpg", 1]), r"test\[10\] must be \[path, label >= 0, class"),
        (lambda s: s["val"].append(["x.jpg", -1, "face"]), r"val\[25\] must be"),
        (lambda s: s["val"].append(["x.jpg", 10**9, "face"]), r"val\[25\] must be"),
        (lambda s: s["val"].append(["x.jpg", "\u00b2", "face"]), r"val\[25\] must be"),
        (lambda s: s["val"].append(["face//x.jpg", 0, "face"]), r"val\[25\] .*one spelling"),
        (lambda s: s["val"].append(["face/../x.jpg", 0, "face"]), r"val\[25\] .*one spelling"),
        (lambda s: s["val"].append(["..", 0, "face"]), r"val\[25\] .*one spelling"),
        (lambda s: s["val"].append(["x.jpg", 0, " "]), r"val\[25\] must have a class name"),
        (lambda s: s["val"].append(["x.jpg", 1, "face"]), "label 1 must have one class name"),
        (lambda s: s["test"].append(["x.jpg", 7, "new"]), r"3 have none: 5 \(no name\), 6"),
    ],
)
def test_a_malformed_split_names_its_place(load, small, edit, message):
    edit_split(small, edit)
    with pytest.raises(ValueError, match=message):
        load("Caltech101", small)


def test_a_split_that_is_not_json_names_its_file(load, small):
    (small / "caltech-101" / "split_zhou_Caltech101.json").write_text("{")
    with pytest.raises(ValueError, match="Caltech101.json must be a JSON split file"):
        load("Caltech101", small)


def test_windows_paths_in_a_split_are_read(load, small):
    def edit(split):
        for row in split["train"]:
            row[0] = row[0].replace("/", "\\")

    edit_split(small, edit)
    assert len(load("Caltech101", small).train_x) == 30
