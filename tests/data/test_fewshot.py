"""causalclip/data/fewshot.py against the draws of CoOp and Dassl, and with files of users."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from dassl.data.datasets import Datum
from hypothesis import given, settings
from hypothesis import strategies as st
from replicas import edit_split, names
from test_recognition import parts

from causalclip.data import fewshot

GOLDEN = json.loads(Path(__file__).with_name("golden_coop.json").read_text())
COMBINATIONS = [key.split() for key in GOLDEN["caltech"] if key.endswith("all") or "16 1" in key]


def digest(dataset, root):
    return hashlib.sha256(json.dumps(parts(dataset, root)).encode()).hexdigest()


@pytest.fixture
def caltech(real_images):
    yield real_images
    shutil.rmtree(real_images / "caltech-101" / "split_fewshot", ignore_errors=True)


@pytest.mark.parametrize(("shots", "seed", "subsample"), COMBINATIONS)
def test_caltech_draws_are_coops(load, caltech, shots, seed, subsample):
    random.seed(int(seed))
    for _ in range(2):  # drawn, then read from the stored file
        dataset = load(
            "Caltech101", caltech, seed=int(seed), NUM_SHOTS=int(shots), SUBSAMPLE_CLASSES=subsample
        )
        assert digest(dataset, caltech) == GOLDEN["caltech"][f"{shots} {seed} {subsample}"]


def _plain_datum(path, label, name=""):
    """Return a Datum of Dassl for a missing image, as in a file from another machine."""
    item = object.__new__(Datum)
    item.__dict__.update(_impath=path, _label=label, _domain=0, _classname=name)
    return item


def published_pickle(root, images_root, *, chosen):
    """What CoOp writes: Dassl's Datum objects with absolute paths, here of `images_root`."""
    images = f"{images_root}/caltech-101/101_ObjectCategories"
    items = [_plain_datum(f"{images}/{path}", label, name) for path, label, name in chosen]
    folder = root / "caltech-101" / "split_fewshot"
    folder.mkdir()
    content = pickle.dumps({"train": items, "val": items[:0]}, protocol=pickle.HIGHEST_PROTOCOL)
    (folder / "shot_1-seed_1.pkl").write_bytes(content)
    return folder / "shot_1-seed_1.pkl"


CHOSEN = [
    [f"{name}/train_3.jpg", label, name]
    for label, name in enumerate(["face", "leopard", "accordion", "airplane", "anchor"])
]


def test_a_stored_set_of_coop_is_used_and_named_in_the_log(load, small, capsys):
    path = published_pickle(small, small, chosen=CHOSEN)
    before = path.read_bytes()
    state = random.getstate()
    dataset = load("Caltech101", small, NUM_SHOTS=1)
    assert names(dataset.train_x) == [row[0] for row in CHOSEN]
    assert str(path) in capsys.readouterr().out
    assert random.getstate() == state
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_a_stored_set_of_coop_survives_a_move_of_the_data(load, small, tmp_path):
    published_pickle(small, "/home/somebody/datasets", chosen=CHOSEN)
    moved = small.rename(tmp_path / "new")
    dataset = load("Caltech101", moved, NUM_SHOTS=1)
    assert names(dataset.train_x) == [row[0] for row in CHOSEN]
    assert all(item.impath.startswith(str(moved)) for item in dataset.train_x)


def test_a_stored_set_of_coop_from_another_split_is_left_alone(load, small, capsys):
    published_pickle(small, small, chosen=CHOSEN)
    edit_split(small, lambda split: split["train"].remove(CHOSEN[2]))
    dataset = load("Caltech101", small, NUM_SHOTS=1)
    assert "1 of its images" in capsys.readouterr().out
    assert len(dataset.train_x) == 5 and names(dataset.train_x) != [row[0] for row in CHOSEN]


def test_a_pickle_that_wants_to_run_code_is_refused(load, small, tmp_path):
    path = published_pickle(small, small, chosen=CHOSEN)
    victim = tmp_path / "victim"

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(victim),)

    path.write_bytes(pickle.dumps({"train": [Attack()]}))
    with pytest.raises(ValueError, match="asks for posix.mkdir, only Dassl's Datum"):
        load("Caltech101", small, NUM_SHOTS=1)
    assert not victim.exists()


@given(at=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=100, derandomize=True)
def test_any_damaged_byte_is_a_clear_error_or_harmless(at, value):
    content = bytearray(pickle.dumps({"train": [_plain_datum("/x/a.jpg", 1)]}))
    content[at % len(content)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shot_1-seed_1.pkl")
        path.write_bytes(content)
        try:
            fewshot.read_published(path)
        except ValueError as error:
            assert "must be a few-shot file" in str(error)


def test_a_pickle_of_todays_dassl_has_the_class_that_is_allowed(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    path = tmp_path / "few.pkl"
    path.write_bytes(pickle.dumps({"train": [Datum(str(tmp_path / "x.jpg"), 3)]}))
    assert fewshot.read_published(path) == {"train": [(str(tmp_path / "x.jpg"), 3)]}


def test_our_stored_set_holds_relative_paths_and_is_read_without_drawing(load, small):
    drawn = load("Caltech101", small, NUM_SHOTS=2)
    stored = small / "caltech-101" / "split_fewshot" / "causalclip_shot_2-seed_1.json"
    assert all(row[0].startswith("101_Obj") for row in json.loads(stored.read_text())["train"])
    state = random.getstate()
    again = load("Caltech101", small, NUM_SHOTS=2)
    assert random.getstate() == state
    assert names(again.train_x) == names(drawn.train_x) and names(again.val) == names(drawn.val)


def test_our_stored_set_is_drawn_again_when_the_split_changes(load, small, capsys):
    drawn = load("Caltech101", small, NUM_SHOTS=2)
    gone = names(drawn.train_x)[0]
    edit_split(small, lambda split: split["train"].remove([gone, 0, "face"]))
    again = load("Caltech101", small, NUM_SHOTS=2)
    assert "split has changed" in capsys.readouterr().out
    assert gone not in names(again.train_x) and len(again.train_x) == 10


def exchanged(stored):
    """Return the draw with another image of the split, which only the checksum can detect."""
    return {**stored, "train": [stored["train"][1], *stored["train"][1:]]}


def test_our_stored_set_is_made_again_when_damaged(load, small, capsys):
    load("Caltech101", small, NUM_SHOTS=2)
    stored = small / "caltech-101" / "split_fewshot" / "causalclip_shot_2-seed_1.json"
    stored.write_text(stored.read_text()[:100])
    assert len(load("Caltech101", small, NUM_SHOTS=2).train_x) == 10
    assert "which is not JSON" in capsys.readouterr().out
    whole = json.loads(stored.read_text())
    for damaged in (
        [],
        {**whole, "train": None},
        {**whole, "train": [1]},
        {"digest": 1},
        exchanged(whole),
    ):
        stored.write_text(json.dumps(damaged))
        assert len(load("Caltech101", small, NUM_SHOTS=2).train_x) == 10
        assert f"Drawing again: {stored} is damaged" in capsys.readouterr().out
    assert len(json.loads(stored.read_text())["train"]) == 10


def test_a_class_with_too_few_images_keeps_them_all(load, small):
    dataset = load("Caltech101", small, NUM_SHOTS=16)
    assert len(dataset.train_x) == 30 and len(dataset.val) == 20  # at most 4 to validate


def test_names_that_are_no_utf8_survive_the_cache(load, small):
    folder = small / "caltech-101" / "101_ObjectCategories" / "face"
    os.rename(os.fsencode(folder / "train_0.jpg"), os.fsencode(folder) + b"/caf\xe9.jpg")
    name = os.fsdecode(b"face/caf\xe9.jpg")
    edit_split(small, lambda s: s["train"].__setitem__(0, [name, 0, "face"]))
    for _ in range(2):
        dataset = load("Caltech101", small, NUM_SHOTS=6)
        assert name in names(dataset.train_x)


@pytest.mark.parametrize("shots", [0, -2])
def test_no_shots_are_refused_and_not_taken_for_all(load, small, shots):
    with pytest.raises(ValueError, match=f"NUM_SHOTS must be a positive number.*-1.*got {shots}"):
        load("Caltech101", small, NUM_SHOTS=shots)
