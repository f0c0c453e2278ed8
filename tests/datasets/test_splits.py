"""datasets/splits.py against what CoOp and Dassl draw, and against files users really have."""

import hashlib
import json
import os
import pickle
import random
import shutil
import sys
import threading
import types
from pathlib import Path

import pytest
from dassl.data.datasets import Datum

from causalclip.datasets import caches, listing, splits

GOLDEN = json.loads(Path(__file__).with_name("golden_coop.json").read_text())
COMBINATIONS = [key.split() for key in GOLDEN["caltech"] if key.endswith("all") or "16 1" in key]


def rows(items, root):
    return [[os.path.relpath(i.impath, root), i.label, i.classname] for i in items or ()]


def digest(dataset, root):
    parts = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
    content = {part: rows(items, root) for part, items in parts.items()}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@pytest.fixture
def caltech(real_images):
    yield real_images
    shutil.rmtree(real_images / "caltech-101" / "split_fewshot", ignore_errors=True)


@pytest.mark.parametrize("shots, seed, subsample", COMBINATIONS)
def test_caltech_draws_are_coops(load, caltech, shots, seed, subsample):
    random.seed(int(seed))
    for _ in range(2):  # drawn, then read from the stored file
        dataset = load(
            "Caltech101", caltech, seed=int(seed), NUM_SHOTS=int(shots), SUBSAMPLE_CLASSES=subsample
        )
        assert digest(dataset, caltech) == GOLDEN["caltech"][f"{shots} {seed} {subsample}"]


# A small set of our own: 5 classes, 6 + 5 + 2 images each


@pytest.fixture
def small(tmp_path):
    folder = tmp_path / "old" / "caltech-101"
    split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(["face", "leopard", "accordion", "airplane", "anchor"]):
        for part, count in (("train", 6), ("val", 5), ("test", 2)):
            for n in range(count):
                path = f"{name}/{part}_{n}.jpg"
                split[part].append([path, label, name])
                image = folder / "101_ObjectCategories" / path
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(b"")
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    return tmp_path / "old"


def edit_split(root, edit):
    path = root / "caltech-101" / "split_zhou_Caltech101.json"
    split = json.loads(path.read_text())
    edit(split)
    path.write_text(json.dumps(split))


def published_pickle(root, images_root, *, chosen):
    """What CoOp writes: Dassl's Datum objects with absolute paths, here of `images_root`."""
    items = []
    for path, label, name in chosen:
        item = object.__new__(Datum)
        item.__dict__.update(
            _impath=f"{images_root}/caltech-101/101_ObjectCategories/{path}",
            _label=label,
            _domain=0,
            _classname=name,
        )
        items.append(item)
    folder = root / "caltech-101" / "split_fewshot"
    folder.mkdir()
    content = pickle.dumps({"train": items, "val": items[:0]}, protocol=pickle.HIGHEST_PROTOCOL)
    (folder / "shot_1-seed_1.pkl").write_bytes(content)
    return folder / "shot_1-seed_1.pkl"


CHOSEN = [
    [f"{name}/train_3.jpg", label, name]
    for label, name in enumerate(["face", "leopard", "accordion", "airplane", "anchor"])
]


def names(items):
    return ["/".join(Path(item.impath).parts[-2:]) for item in items]


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


def test_a_damaged_pickle_names_its_file(load, small):
    path = published_pickle(small, small, chosen=CHOSEN)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="shot_1-seed_1.pkl must be a few-shot file"):
        load("Caltech101", small, NUM_SHOTS=1)


def test_a_pickle_of_todays_dassl_has_the_class_that_is_allowed(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    path = tmp_path / "few.pkl"
    path.write_bytes(pickle.dumps({"train": [Datum(str(tmp_path / "x.jpg"), 3)]}))
    assert splits.read_published(path) == {"train": [(str(tmp_path / "x.jpg"), 3)]}


def test_a_module_that_only_looks_like_dassl_is_refused(tmp_path):
    module = types.ModuleType("dassl_evil")
    module.Datum = type("Datum", (), {"__module__": "dassl_evil", "__qualname__": "Datum"})
    sys.modules["dassl_evil"] = module
    path = tmp_path / "few.pkl"
    path.write_bytes(pickle.dumps({"train": [module.Datum()]}))
    del sys.modules["dassl_evil"]
    with pytest.raises(ValueError, match="asks for dassl_evil.Datum"):
        splits.read_published(path)


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


def test_our_stored_set_is_made_again_when_damaged(load, small, capsys):
    load("Caltech101", small, NUM_SHOTS=2)
    stored = small / "caltech-101" / "split_fewshot" / "causalclip_shot_2-seed_1.json"
    stored.write_text(stored.read_text()[:100])
    assert len(load("Caltech101", small, NUM_SHOTS=2).train_x) == 10
    assert "which is not JSON" in capsys.readouterr().out
    assert len(json.loads(stored.read_text())["train"]) == 10


def test_a_class_with_too_few_images_keeps_them_all(load, small):
    dataset = load("Caltech101", small, NUM_SHOTS=16)
    assert len(dataset.train_x) == 30 and len(dataset.val) == 20  # at most 4 to validate


def test_base_is_the_larger_half_and_both_start_at_label_zero(load, small):
    base = load("Caltech101", small, SUBSAMPLE_CLASSES="base")
    new = load("Caltech101", small, SUBSAMPLE_CLASSES="new")
    assert base.classnames == ["face", "leopard", "accordion"]
    assert new.classnames == ["airplane", "anchor"]
    assert {i.label for i in new.test} == {i.label for i in new.train_x} == {0, 1}


def test_halves_keep_the_domain():
    items = [listing.listed("/x/a.jpg", y, domain=3, classname=str(y)) for y in range(4)]
    (new,) = splits.subsample_classes(items, subsample="new")
    assert [(i.label, i.domain, i.classname) for i in new] == [(0, 3, "2"), (1, 3, "3")]


@pytest.mark.parametrize(
    "subsample, labels, message",
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
    "edit, message",
    [
        (lambda s: s.pop("val"), "lists train, val and test"),
        (lambda s: s["test"].append(["x.jpg", 1]), r"test\[10\] must be \[path, label >= 0, class"),
        (lambda s: s["val"].append(["x.jpg", -1, "face"]), r"val\[25\] must be"),
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


def test_names_that_are_no_utf8_survive_the_cache(load, small):
    folder = small / "caltech-101" / "101_ObjectCategories" / "face"
    os.rename(os.fsencode(folder / "train_0.jpg"), os.fsencode(folder) + b"/caf\xe9.jpg")
    name = os.fsdecode(b"face/caf\xe9.jpg")
    edit_split(small, lambda s: s["train"].__setitem__(0, [name, 0, "face"]))
    for _ in range(2):
        dataset = load("Caltech101", small, NUM_SHOTS=6)
        assert name in names(dataset.train_x)


# Where derived files go


def deny_writing_below(root, monkeypatch, error):
    make = caches.tempfile.mkstemp

    def mkstemp(*, dir, prefix):
        if Path(dir).is_relative_to(root):
            raise OSError(error, os.strerror(error), str(dir))
        return make(dir=dir, prefix=prefix)

    monkeypatch.setattr(caches.tempfile, "mkstemp", mkstemp)


def test_a_read_only_root_keeps_its_few_shot_sets_in_the_cache(load, small, cache, monkeypatch):
    deny_writing_below(small, monkeypatch, caches.errno.EROFS)
    drawn = load("Caltech101", small, NUM_SHOTS=2)
    (stored,) = cache.rglob("*.json")
    assert stored.name == "causalclip_shot_2-seed_1.json"
    assert names(load("Caltech101", small, NUM_SHOTS=2).train_x) == names(drawn.train_x)


def test_a_full_disk_is_not_taken_for_a_read_only_one(load, small, monkeypatch):
    deny_writing_below(small, monkeypatch, caches.errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        load("Caltech101", small, NUM_SHOTS=2)


def test_a_cache_that_cannot_be_written_either_says_what_to_set(load, small, cache, monkeypatch):
    deny_writing_below(small.parents[1], monkeypatch, caches.errno.EACCES)
    deny_writing_below(Path("/"), monkeypatch, caches.errno.EACCES)
    with pytest.raises(PermissionError, match="set CAUSALCLIP_CACHE"):
        load("Caltech101", small, NUM_SHOTS=2)


def test_of_two_that_write_at_once_the_first_wins_and_no_reader_sees_a_part(tmp_path):
    path = tmp_path / "split.json"
    contents = [[i] * 20000 for i in range(8)]
    seen = []

    def write(content):
        caches.store_json(path, content, keep_existing=True)
        seen.append(caches.load_json(path))

    threads = [threading.Thread(target=write, args=(c,)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen[0] in contents and all(content == seen[0] for content in seen)
    assert [p.name for p in tmp_path.iterdir()] == ["split.json"]
