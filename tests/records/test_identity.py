"""run.json: what makes two runs the same, and what becomes of a file that is damaged."""

from __future__ import annotations

import json

import pytest
from scipy.stats import binom

from causalclip.records.identity import (
    DEFAULT,
    RUN_FILE,
    Identity,
    ZeroShot,
    describe,
    has_result,
    model_digest,
    read_run,
    read_zero_shot,
    recorded_config,
    recorded_fingerprint,
    run_settings,
    setting_differences,
    write_run,
)


def test_the_settings_of_other_methods_and_those_that_do_not_matter_do_not_count():
    tree = {"SEED": 1, "OUTPUT_DIR": "x", "DATALOADER": {"NUM_WORKERS": 8}}
    tree["TRAINER"] = {"NAME": "CDC", "CDC": {"BETA": 5.0}, "COOP": {"N_CTX": 4}}
    expected = {"SEED": 1, "TRAINER.NAME": "CDC", "TRAINER.CDC.BETA": 5}
    assert run_settings(tree, "CDC") == expected
    assert run_settings(tree) == {**expected, "TRAINER.COOP.N_CTX": 4}


def test_values_are_the_same_after_a_round_trip_through_json():
    settings = run_settings({"A": 5.0, "B": (224, 224), "C": 0.1})
    assert settings == json.loads(json.dumps(settings)) == {"A": 5, "B": [224, 224], "C": 0.1}


def test_what_is_in_a_file_that_a_setting_names_counts_and_not_its_path(tmp_path):
    def settings(name, content):
        (tmp_path / name).write_bytes(content)
        return run_settings({"TRAINER": {"CDC": {"PROJECTION": str(tmp_path / name)}}}, "CDC")

    first = settings("one", b"content")
    assert settings("two", b"content") == first
    assert settings("one", b"another") != first


def test_the_fingerprint_follows_every_part_of_the_identity_and_no_order():
    first = Identity({"A": 1, "B": 2}, weights="w", model="m")
    assert first.fingerprint == Identity({"B": 2, "A": 1}, weights="w", model="m").fingerprint
    others = [
        Identity({"A": 1, "B": 3}, weights="w", model="m"),
        Identity({"A": 1, "B": 2}, weights="v", model="m"),
        Identity({"A": 1, "B": 2}, weights="w", model="n"),
        Identity({"A": 1, "B": 2}, epoch=5, weights="w", model="m"),
        Identity({"A": 1, "B": 2}, weights="w", model="m", data={"test": "d"}),
    ]
    assert len({run.fingerprint for run in [first, *others]}) == 6


def test_differences_name_both_values_and_know_defaults():
    def difference(current):
        return setting_differences({"A": 2, "B": 3}, current, {"C": 7})

    assert difference({"A": 2, "B": 3}) == []
    assert difference({"A": 2, "B": 3, "C": 7}) == []  # stated, and the default
    assert difference({"A": 1, "B": 3}) == [("A", 2, 1)]
    assert difference({"A": 2}) == [("B", 3, DEFAULT)]
    assert difference({"A": 2, "B": 3, "D": 1}) == [("D", DEFAULT, 1)]
    assert (
        describe([("A", 2, 1), ("B", "x", [3])]) == "A is 2 there, 1 here; B is 'x' there, [3] here"
    )


def test_a_model_is_named_by_all_its_checkpoints(tmp_path):
    assert model_digest(tmp_path) is None
    for folder, content in (("prompt_learner", "first"), ("second", "numbers")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.pth.tar-1").write_text(content)
    first = model_digest(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    assert model_digest(tmp_path) == first
    (tmp_path / "second" / "model.pth.tar-1").write_text("others")
    assert model_digest(tmp_path) != first


# Files


def test_what_is_written_is_read(tmp_path):
    assert read_run(tmp_path) is None and recorded_fingerprint(tmp_path) is None
    run = Identity({"A": [1, "b"]}, epoch=3, weights="w", model="m", data={"train": "d"})
    write_run(tmp_path, run, {"command": ["train.py"]})
    assert read_run(tmp_path) == run
    assert recorded_fingerprint(tmp_path) == run.fingerprint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", " is damaged"),
        ('{"schema": 1}', " is damaged"),
        ('{"schema": 1, "identity": 3}', " is damaged"),
        ('{"schema": 1, "identity": {"settings": [], "other": 1}}', " is damaged"),
        ('{"schema": 1, "identity": {"settings": []}}', " is damaged"),
        ('{"schema": 1, "identity": {"settings": {}, "data": []}}', " is damaged"),
        ('{"schema": 1, "identity": {"settings": {}}, "fingerprint": "other"}', " is damaged"),
        ("[" * 200_000, " is damaged"),
        ('{"schema": 99}', ": schema 99, known is 1"),
    ],
    ids=range(9),
)
def test_a_damaged_or_newer_run_file_is_named(content, said, tmp_path):
    (tmp_path / RUN_FILE).write_text(content)
    with pytest.raises(ValueError, match=rf"run\.json{said}"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "3", "[]", '{"schema": 2}', '{"metrics": {}}', '{"metrics": ', "[" * 200_000],
    ids=range(7),
)
def test_a_damaged_result_or_one_without_accuracy_is_no_result(content, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(content)
    assert not has_result(tmp_path) and recorded_config(tmp_path) is None
    path.write_text('{"metrics": {"accuracy": 50.0}, "config": {"SEED": 1}}')
    assert has_result(tmp_path) and recorded_config(tmp_path) == {"SEED": 1}


# The zero-shot accuracy


@pytest.mark.parametrize(("images", "classes"), [(20, 2), (48, 12), (128, 6), (128, 100)])
def test_the_limit_is_that_of_a_binomial_test(images, classes):
    right = binom.ppf(0.99, images, 1 / classes)  # guessing has more once in a hundred times
    warned = [bool(ZeroShot(100 * n / images, images, classes).warning) for n in range(images)]
    assert abs(sum(warned) - (right + 1)) <= 1  # the normal distribution is an approximation


def test_few_images_say_nothing():
    assert not ZeroShot(0.0, 19, 12).warning
    assert ZeroShot(0.0, 20, 12).warning == (
        "this CLIP does not know these classes: its zero-shot accuracy on 20 training "
        "images is 0.0 %, chance 8.3 %"
    )


NONSENSE = '{"zero_shot": {"accuracy": "x", "images": -1, "classes": 0}}'


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"zero_shot": {"accuracy": 1}}', "{}", NONSENSE]
)
def test_a_folder_without_a_record_has_no_accuracy(content, tmp_path):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert read_zero_shot(tmp_path) is None
