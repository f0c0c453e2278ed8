"""Identity: what makes two runs the same, and what becomes of a folder that holds another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from causalclip.runs import identity, perform, state
from causalclip.runs.identity import (
    Identity,
    Recorded,
    asked_settings,
    differences,
    flat,
    model_digest,
    parsed,
    read_run,
)
from causalclip.runs.plan import PlanError, Request, plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.schedule import Outcome, Schedule
from causalclip.runs.state import State, state_of
from causalclip.runs.train import check_folder
from causalclip.runs.variant import variant

# What counts


def test_the_settings_of_other_methods_and_those_that_do_not_matter_do_not_count():
    tree = {"SEED": 1, "OUTPUT_DIR": "x", "DATALOADER": {"NUM_WORKERS": 8}}
    tree["TRAINER"] = {"NAME": "CDC", "CDC": {"BETA": 5.0}, "COOP": {"N_CTX": 4}}
    assert flat(tree, node="CDC") == {"SEED": 1, "TRAINER.NAME": "CDC", "TRAINER.CDC.BETA": 5}


def test_every_setting_that_does_not_matter_has_a_reason():
    assert all(reason.strip() for reason in identity.NO_MATTER.values())


def test_values_are_the_same_however_they_are_written():
    assert parsed("5.0") == parsed("5") == flat({"A": 5.0})["A"]
    assert parsed("(224, 224)") == flat({"A": (224, 224)})["A"]


def test_the_fingerprint_follows_every_part_of_the_identity_and_no_order():
    first = Identity({"A": 1, "B": 2}, weights="w", model="m")
    assert first.fingerprint == Identity({"B": 2, "A": 1}, weights="w", model="m").fingerprint
    others = [
        Identity({"A": 1, "B": 3}, weights="w", model="m"),
        Identity({"A": 1, "B": 2}, weights="v", model="m"),
        Identity({"A": 1, "B": 2}, weights="w", model="n"),
        Identity({"A": 1, "B": 2}, epoch=5, weights="w", model="m"),
    ]
    assert len({run.fingerprint for run in [first, *others]}) == 5


def test_what_is_in_a_file_that_a_setting_names_counts_and_not_its_path_alone(tmp_path):
    file = tmp_path / "projection.safetensors"
    pairs = ["TRAINER.CDC.PROJECTION", str(file)]
    file.write_bytes(b"one")
    once = asked_settings((), pairs)
    tree = {"TRAINER": {"NAME": "CDC", "CDC": {"PROJECTION": str(file)}}}
    recorded = flat(tree, node="CDC")
    assert recorded[pairs[0]] == once[pairs[0]]
    assert variant(pairs, recorded) == ""
    file.write_bytes(b"another")
    again = asked_settings((), pairs)
    assert differences(Recorded(Identity(once), once), again) == [
        (pairs[0], once[pairs[0]], again[pairs[0]])
    ]


def test_differences_name_both_values_and_know_defaults():
    there = Recorded(Identity({"A": 2, "B": 3}), {"A": 2, "B": 3, "C": 7})
    assert differences(there, {"A": 2, "B": 3}) == []
    assert differences(there, {"A": 2, "B": 3, "C": 7}) == []  # said, and the default
    assert differences(there, {"A": 1, "B": 3}) == [("A", 2, 1)]
    assert differences(there, {"A": 2}) == [("B", 3, "its default")]
    assert differences(there, {"A": 2, "B": 3, "D": 1}) == [("D", "its default", 1)]


# Folders of their own


def test_settings_beside_a_recipe_name_a_folder_of_their_own():
    known = {"OPTIM.LR": 0.002}
    assert variant(["TRAINER.CDC.N_TEMPLATES", "2"], known) == "N_TEMPLATES=2"
    assert variant(["OPTIM.LR", "2e-3", "DATALOADER.NUM_WORKERS", "0"], known) == ""
    assert variant(["OPTIM.LR", "1", "OPTIM.LR", "0.1"], known) == "LR=0.1"
    assert variant(["MODEL.BACKBONE.NAME", "/a/b/mine.pt"], known) == "BACKBONE=mine"
    assert variant(["A.X", "1", "B.X", "2"], {}) == "A.X=1,B.X=2"
    assert variant(["INPUT.TRANSFORMS", "['a', \"b/c\"]"], {}) == "TRANSFORMS=c"


def test_the_suffix_is_in_the_folder_of_the_training_and_of_its_test():
    request = Request(PROTOCOLS["base2new"], ("CDC",), ("handwritten_digits",))
    request = Request(**{**vars(request), "settings": ("TRAINER.CDC.N_TEMPLATES", "2")})
    train, test = plan(request, list)
    assert train.folder.parent.name == test.folder.parent.name == "tiny_m4,N_TEMPLATES=2"
    assert test.trained == train.folder


def test_a_run_without_a_data_set_file_asks_for_what_its_settings_say():
    arguments = ("--trainer", "CoOp", "DATASET.NAME", "HandwrittenDigits")
    found = state.settings_of(arguments)
    assert found == {"TRAINER.NAME": "CoOp", "DATASET.NAME": "HandwrittenDigits"}


# What is in a folder


@pytest.fixture
def pair(tmp_path):
    """A training and its test, planned below a fresh folder."""
    request = Request(
        PROTOCOLS["base2new"], ("CoOp",), ("handwritten_digits",), output=tmp_path / "out"
    )
    return plan(request, list)


def leave(run, result='{"metrics": {}}', **changed):
    """What a finished run leaves in its folder."""
    settings = {**state.settings_of(run.arguments), **changed}
    model = model_digest(run.trained) if run.trained else None
    identity.write_run(run.folder, Recorded(Identity(settings, model=model), settings), {})
    (run.folder / "results.json").write_text(result)


def learn(folder: Path, numbers: str) -> None:
    path = folder / "prompt_learner" / "model.pth.tar-1"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(numbers)


def test_a_folder_is_to_run_then_finished(pair):
    train, _ = pair
    assert state_of(train) is State.TO_RUN
    leave(train)
    assert state_of(train) is State.FINISHED


@pytest.mark.parametrize("result", ["", '{"metrics": ', "null"])
def test_an_empty_or_cut_result_is_not_finished(pair, result):
    train, _ = pair
    leave(train, result)
    assert state_of(train) is State.TO_RUN


def test_a_test_is_stale_once_its_training_was_done_again(pair):
    train, test = pair
    leave(train)
    learn(train.folder, "first")
    leave(test)
    assert state_of(test) is State.FINISHED
    learn(train.folder, "second")
    assert state_of(test) is State.STALE


def test_a_folder_with_other_settings_is_neither_skipped_nor_overwritten(pair):
    train, _ = pair
    leave(train, **{"OPTIM.MAX_EPOCH": 99})
    assert state_of(train) is State.OTHER
    with pytest.raises(PlanError, match=r"holds another run: OPTIM.MAX_EPOCH is 99 there, \d+ he"):
        perform.check_free(pair)


def test_a_folder_from_before_fingerprints_is_taken_as_it_is_and_said_once(pair, capsys):
    for run in pair:
        run.folder.mkdir(parents=True)
        (run.folder / "results.json").write_text('{"metrics": {}}')
    assert {state_of(run) for run in pair} == {State.OLD}
    assert perform.perform(pair) == 0
    printed = capsys.readouterr().out
    assert printed.count("2 folders are from before runs had an identity") == 1
    assert printed.count("skip (finished)") == 2


def test_a_newer_run_file_is_refused_by_name(pair):
    train, _ = pair
    leave(train)
    path = train.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(ValueError, match=r"run\.json: schema 99, known is 1"):
        state_of(train)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"schema": 1}',
        '{"schema": 1, "identity": 3, "configuration": {}}',
        '{"schema": 1, "identity": {"settings": [], "other": 1}, "configuration": {}}',
        '{"schema": 1, "identity": {"settings": []}, "configuration": {}}',
        '{"schema": 1, "identity": {"settings": {}}, "configuration": {}, "fingerprint": "other"}',
        "[" * 200_000,
    ],
    ids=range(7),
)
def test_a_damaged_run_file_is_named_and_a_plan_stops_at_it(content, pair, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="run.json"):
        read_run(tmp_path)
    train, _ = pair
    train.folder.mkdir(parents=True)
    (train.folder / "run.json").write_text(content)
    with pytest.raises(PlanError, match=r"run\.json.*choose another --output"):
        perform.check_readable([train])
    outcome = Schedule([train]).next()
    assert isinstance(outcome, Outcome)
    assert (outcome.state, "run.json" in outcome.reason) == ("failed", True)
    assert state.Estimate(tmp_path).seconds(train) is None  # a stranger's stands in nobody's way


def test_settings_whose_names_fill_more_than_a_folders_name_end_in_a_digest():
    names = {variant(["TRAINER.COOP.CTX_INIT", f"{'long ' * 200}{end}"], {}) for end in "ab"}
    assert len(names) == 2
    assert all(len(name.encode()) <= 220 and name.startswith("CTX_INIT=long") for name in names)


@pytest.mark.parametrize("content", ["", "3", "[]", '{"schema": 2}', "[" * 200_000], ids=range(5))
def test_a_damaged_result_is_no_result(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    assert not identity.has_result(tmp_path)
    assert identity.read_result(tmp_path) is None


def test_a_folder_that_has_lost_its_run_file_is_compared_by_its_result(tmp_path):
    settings = {"OPTIM": {"LR": 0.5}, "SEED": 1}
    (tmp_path / "results.json").write_text(json.dumps({"metrics": {}, "config": settings}))
    mine = Recorded(Identity({"A.NEW.KEY": 3}), {"OPTIM.LR": 0.5, "SEED": 1, "A.NEW.KEY": 3})
    check_folder(tmp_path, mine)
    with pytest.raises(ValueError, match="holds another run: SEED is 1 there, 2 here"):
        check_folder(tmp_path, Recorded(mine.identity, {**mine.configuration, "SEED": 2}))


def test_the_time_of_a_plan_is_estimated_from_past_runs_of_its_kind(pair, tmp_path):
    train, test = pair
    settings = state.settings_of(train.arguments)
    recorded = Recorded(Identity(settings), settings)
    for seed, seconds in ((2, 10.0), (3, 20.0)):
        folder = tmp_path / "out" / str(seed)
        identity.write_run(folder, recorded, {"seconds": seconds})
    estimate = state.Estimate(tmp_path / "out")
    assert estimate.seconds(train) == 15
    assert estimate.total([train, test]) == (15, 1)
    shutil.rmtree(tmp_path / "out")
    assert state.Estimate(tmp_path / "out").seconds(train) is None
