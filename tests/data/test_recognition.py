"""datasets/recognition.py and annotations.py: replicas loaded as CoOp's own code loads them."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import replicas

from causalclip.data import splits
from causalclip.data.catalogue import CATALOGUE, RECOGNITION, facts_of

GOLDEN = json.loads(Path(__file__).with_name("golden_coop.json").read_text())["replicas"]
NAMES = [facts.name for facts in RECOGNITION]


def rows(items, root):
    return [[os.path.relpath(i.impath, root), i.label, i.classname] for i in items or ()]


def parts(dataset, root):
    found = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
    return {part: rows(items, root) for part, items in found.items()}


@pytest.fixture
def sorted_listing(monkeypatch):
    """CoOp shuffles what the file system lists; the golden run listed in sorted order."""
    plain = splits.listdir_nohidden
    monkeypatch.setattr(splits, "listdir_nohidden", lambda folder: sorted(plain(folder)))


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_loads_as_in_coop_from_its_annotations(load, tmp_path, sorted_listing, name):
    replicas.LAYOUTS[name](tmp_path)
    random.seed(5)
    dataset = load(name, tmp_path, seed=5, NUM_SHOTS=2)
    assert parts(dataset, tmp_path) == GOLDEN[name]["parts"]
    assert random.random() == GOLDEN[name]["after"]  # not one draw more or less


@pytest.mark.parametrize("name", [facts.name for facts in RECOGNITION if facts.split_file])
def test_the_split_made_once_is_kept_whatever_the_next_seed(load, tmp_path, name):
    replicas.LAYOUTS[name](tmp_path)
    random.seed(5)
    first = load(name, tmp_path)
    state = random.getstate()
    again = load(name, tmp_path)
    assert random.getstate() == state
    assert parts(again, tmp_path) == parts(first, tmp_path)


def test_a_made_split_says_that_figures_are_not_comparable(load, tmp_path, capsys):
    replicas.dtd(tmp_path)
    load("DescribableTextures", tmp_path)
    said = capsys.readouterr().out
    assert "not comparable" in said and "data download DescribableTextures" in said


# Bad input


def test_a_root_that_does_not_exist_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match="DATASET.ROOT must be an existing folder"):
        load("Caltech101", tmp_path / "no")


def test_a_root_without_the_set_lists_what_it_holds(load, tmp_path):
    replicas.eurosat(tmp_path)
    with pytest.raises(FileNotFoundError, match="must hold the folder caltech-101/, .* eurosat"):
        load("Caltech101", tmp_path)


def test_a_root_one_folder_too_deep_is_recognised(load, tmp_path):
    replicas.caltech101(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"try --root {tmp_path}"):
        load("Caltech101", tmp_path / "caltech-101")


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("OxfordPets", "annotations/test.txt"),
        ("StanfordCars", "devkit/cars_meta.mat"),
        ("OxfordFlowers", "cat_to_name.json"),
        ("SUN397", "ClassName.txt"),
        ("UCF101", "ucfTrainTestlist/classInd.txt"),
    ],
)
def test_without_split_and_annotations_both_are_named(load, tmp_path, name, gone):
    replicas.LAYOUTS[name](tmp_path)
    (tmp_path / facts_of(name).folder / gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"needs split_zhou_{name}.*{gone.split('/')[-1]}"):
        load(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("OxfordPets", "annotations/test.txt", "Abyssinian_1 1\n", "line 1: must have 4 fields"),
        ("OxfordPets", "annotations/test.txt", "Pug_1 x 1 1\n", "line 1: the label must be"),
        ("OxfordFlowers", "cat_to_name.json", "{", "cat_to_name.json must be a JSON object"),
        ("OxfordFlowers", "cat_to_name.json", "{}", "cat_to_name.json: must name one of the"),
        ("SUN397", "Testing_01.txt", "/z/zoo/a.jpg\n", "line 1: must name one of the classes"),
        ("FGVCAircraft", "images_variant_val.txt", "1234\n", "line 1: must be an id and a name"),
        ("UCF101", "ucfTrainTestlist/testlist01.txt", "No/v.avi\n", "line 1: must name one of the"),
        ("SUN397", "ClassName.txt", b"/a/caf\xe9\n", "ClassName.txt must be UTF-8 text"),
        ("StanfordCars", "devkit/cars_meta.mat", "text", "cars_meta.mat must be a MATLAB file"),
    ],
)
def test_a_malformed_annotation_names_file_and_line(load, tmp_path, name, file, content, message):
    replicas.LAYOUTS[name](tmp_path)
    replicas.put(tmp_path / facts_of(name).folder / file, content)
    with pytest.raises(ValueError, match=message):
        load(name, tmp_path)


def test_a_class_with_too_few_images_to_split_is_named(load, tmp_path):
    replicas.eurosat(tmp_path)
    shutil.rmtree(tmp_path / "eurosat" / "2750" / "Highway")
    replicas.put_images(tmp_path / "eurosat" / "2750" / "Highway", ["one.jpg"])
    with pytest.raises(ValueError, match="class 'Highway' has 1 images; .* need 4 or more"):
        load("EuroSAT", tmp_path)


def test_annotated_images_that_are_missing_are_counted(load, tmp_path):
    replicas.fgvc_aircraft(tmp_path)
    (tmp_path / "fgvc_aircraft" / "images" / "1000001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 9 images .* missing"):
        load("FGVCAircraft", tmp_path)


def test_the_catalogue_counts_what_the_paper_counts():
    # CoOp (arXiv:2109.01134), appendix: classes, train, val, test.
    published = {
        "Caltech101": (100, 4128, 1649, 2465),
        "OxfordPets": (37, 2944, 736, 3669),
        "StanfordCars": (196, 6509, 1635, 8041),
        "OxfordFlowers": (102, 4093, 1633, 2463),
        "Food101": (101, 50500, 20200, 30300),
        "FGVCAircraft": (100, 3334, 3333, 3333),
        "SUN397": (397, 15880, 3970, 19850),
        "DescribableTextures": (47, 2820, 1128, 1692),
        "EuroSAT": (10, 13500, 5400, 8100),
        "UCF101": (101, 7639, 1898, 3783),
    }
    assert {n: (CATALOGUE[n].classes, *CATALOGUE[n].sizes) for n in published} == published
