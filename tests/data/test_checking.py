"""causalclip/data/checking.py: replicas, with their counts in place of the published ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace as shrunk

import pytest
import replicas

from causalclip.data.bundled import MARKER
from causalclip.data.catalogue import CATALOGUE, DOMAINBED, facts_of
from causalclip.data.checking import find_problems


@pytest.fixture
def caltech(load, tmp_path):
    replicas.caltech101(tmp_path)
    load("Caltech101", tmp_path)  # makes the split
    return shrunk(facts_of("Caltech101"), classes=5, sizes=(27, 11, 16))


def test_a_whole_set_has_no_problems(caltech, tmp_path):
    split = json.loads((tmp_path / "caltech-101" / caltech.split_file).read_text())
    counted = shrunk(caltech, sizes=tuple(len(split[p]) for p in ("train", "val", "test")))
    assert find_problems(counted, tmp_path) == []


NAMED_BY_PATH = [facts.name for facts in CATALOGUE.values() if facts.name_in_path]


@pytest.mark.parametrize("name", NAMED_BY_PATH)
def test_published_names_follow_from_the_paths_of_every_replica(load, name, tmp_path):
    replicas.LAYOUTS[name](tmp_path)
    load(name, tmp_path)  # makes the split, as CoOp names its classes
    facts = facts_of(name)
    path = tmp_path / facts.folder / facts.split_file
    assert not [p for p in find_problems(facts, tmp_path) if "class names" in p]
    split = json.loads(path.read_text())
    wrong = split["train"][0][2]
    for row in (row for rows in split.values() for row in rows if row[2] == wrong):
        row[2] = "thing"
    path.write_text(json.dumps(split))
    (said,) = [p for p in find_problems(facts, tmp_path) if "class names" in p]
    assert said == f"not the published class names (1): 'thing' for {wrong!r}"


def test_missing_images_are_counted_with_the_first_five(caltech, tmp_path):
    for path in sorted((tmp_path / "caltech-101").rglob("accordion/*.jpg"))[:7]:
        path.unlink()
    (said,) = [p for p in find_problems(caltech, tmp_path) if "missing" in p]
    assert said.startswith("7 of ") and said.count("accordion/") == 5


def test_a_missing_split_file_and_image_folder_are_both_named(tmp_path):
    (tmp_path / "dtd").mkdir()
    said = find_problems(facts_of("dtd"), tmp_path)
    assert "split_zhou_DescribableTextures.json is missing" in said[0]
    assert said[1].endswith("images is missing")


def test_decode_finds_files_that_are_no_images(caltech, tmp_path):
    path = next((tmp_path / "caltech-101").rglob("accordion/*.jpg"))
    path.write_bytes(b"no image")
    assert not [p for p in find_problems(caltech, tmp_path) if "cannot be read" in p]
    (said,) = [p for p in find_problems(caltech, tmp_path, decode=True) if "cannot be read" in p]
    assert path.name in said


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ImageNet", {"classes": 4, "sizes": (38, None, 12)}),
        ("ImageNetV2", {"classes": 4, "sizes": (None, None, 8)}),
        ("ImageNetR", {"classes": 2, "sizes": (None, None, 6)}),
        ("FGVCAircraft", {"classes": 3, "sizes": (9, 9, 9)}),
    ],
)
def test_replicas_of_other_layouts_are_whole(tmp_path, name, counts):
    replicas.LAYOUTS[name](tmp_path)
    assert find_problems(shrunk(facts_of(name), **counts), tmp_path) == []
    fewer = shrunk(facts_of(name), **{**counts, "classes": 9})
    assert len(find_problems(fewer, tmp_path)) == (2 if name == "ImageNet" else 1)


@pytest.mark.parametrize("facts", DOMAINBED, ids=lambda facts: facts.name)
def test_domain_sets_are_checked_domain_by_domain(tmp_path, facts):
    replicas.domains(tmp_path / facts.folder, facts.domains, ["ant", "bee"])
    names = facts.class_names and ("ant", "bee")
    counted = shrunk(facts, classes=2, images=21 * len(facts.domains), class_names=names)
    assert find_problems(counted, tmp_path) == []
    if facts.class_names:
        other = shrunk(counted, class_names=("ant", "cat"))
        assert find_problems(other, tmp_path) == ["classes bee, published ant, cat"]
    for path in (tmp_path / facts.folder / facts.domains[0] / "ant").iterdir():
        path.unlink()
    said = find_problems(counted, tmp_path)
    assert said[0] == f"domain {facts.domains[0]} has no image of ant" and len(said) == 2


# sets that are drawn on first use


def test_a_drawn_set_names_the_looks_and_pictures_that_are_gone(drawn, tmp_path):
    gone = sorted((tmp_path / drawn.folder / "ink").rglob("*.jpg"))[:4]
    for path in gone:
        path.unlink()
    counted, named = find_problems(drawn, tmp_path)
    assert counted.startswith("1 of the 5 pictures are in ") and counted.endswith("ink")
    assert all(f"{path.parent.name}/{path.name}" in named for path in gone)


def test_a_picture_that_is_gone_in_every_look_is_counted(drawn, tmp_path):
    for path in (tmp_path / drawn.folder).rglob("zero/*.jpg"):
        path.unlink()
    assert ["2 of the 5 pictures" in said for said in find_problems(drawn, tmp_path)] == [
        True,
        True,
    ]


def test_a_look_and_the_files_beside_it_are_missed(drawn, tmp_path):
    folder = tmp_path / drawn.folder
    shutil.rmtree(folder / "chalk")
    (folder / MARKER).unlink()
    (folder / drawn.split_file).unlink()
    said = "\n".join(find_problems(drawn, tmp_path))
    for what in (f"{MARKER} is missing", f"{drawn.split_file} is missing", "0 of the 5 pictures"):
        assert what in said
