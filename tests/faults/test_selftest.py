"""A short run of benchmarks/selftest.py: damaged inputs and kills, and plain answers.

Its writers are tried on one kind of file each: all of them take a quarter of an hour.
"""

from __future__ import annotations

import importlib
import json
import os
import random
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def selftest():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("selftest")


@pytest.fixture
def writers(selftest):
    return importlib.import_module("selftest_writers")


@pytest.fixture
def faults(selftest):
    return importlib.import_module("selftest_faults")


def test_damaged_inputs_are_answered_or_refused_and_kills_leave_a_whole_file(selftest):
    seed = random.randrange(10**6)
    count = selftest.run(270, seed)
    wrong = {key for key in count if key[1] not in ("answered", "refused", "old", "new")}
    assert not wrong, f"seed {seed}"
    assert sum(count.values()) == 297


def test_whole_inputs_are_answered(selftest, monkeypatch):
    monkeypatch.setattr(selftest, "damaged", lambda content, draw: content)
    said = {kind: outcome for kind, outcome in selftest.run(9, 0) if kind != "killed writer"}
    assert said == {**dict.fromkeys(selftest.kinds(), "answered"), "digest": "refused"}


def test_a_reader_that_fails_without_a_word_is_counted(selftest, monkeypatch):
    def broken(path):
        raise KeyError("state_dict")

    monkeypatch.setattr(selftest, "kinds", lambda: {"a": (b"1", "a", broken)})
    assert ("a", "traceback: KeyError: 'state_dict'") in selftest.run(1, 0)


def bare(folder, number):
    """A writer that does not write to a neighbour first."""
    with open(folder / "file", "w") as file:
        file.write(str(number))
        os.fsync(file.fileno())  # what was written is still in Python's memory


def read(folder):
    return json.loads((folder / "file").read_text())


def outcomes(trial, folder):
    """What a kill at each operation leaves, until the writer comes to its end."""
    found = []
    for number in range(1, 100):
        (folder / str(number)).mkdir()
        outcome, killed = trial(folder / str(number), number)
        found.append(outcome)
        if not killed:
            return found
    raise AssertionError


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside torch's threads
def test_a_kill_at_any_file_operation_leaves_the_old_file_or_the_new_one(writers, faults, tmp_path):
    kind = writers.WRITERS["run"]
    found = outcomes(lambda folder, n: faults.killed_at(kind, folder, n), tmp_path)
    assert len(found) > 5 and found[0] == "old" and found[-1] == "new"
    assert found == sorted(found, reverse=True)  # all old, then all new
    unsafe = writers.Writer(bare, read)
    (tmp_path / "bare").mkdir()
    found = outcomes(lambda folder, n: faults.killed_at(unsafe, folder, n), tmp_path / "bare")
    assert any("traceback: JSONDecodeError" in outcome for outcome in found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_four_processes_at_one_folder_see_whole_files_and_one_holds_a_lock(
    writers, faults, tmp_path
):
    draw = random.Random(0)
    assert faults.four_at_once(writers.WRITERS["result"], tmp_path, draw) == "fine"
    assert faults.four_at_a_lock(tmp_path) == "fine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.parametrize("kind", ["split", "checkpoint", "unpacked archive"])
def test_a_full_disk_is_said_with_the_file_and_leaves_what_was_there(
    writers, faults, tmp_path, kind
):
    full = random.Random(0)
    full.randrange = lambda *_: 9_000  # bytes that are left
    said = faults.on_full_disk(writers.WRITERS[kind], tmp_path, full)
    assert said == "said, old"
