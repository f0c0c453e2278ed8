"""A short run of benchmarks/selftest.py: damaged inputs and kills, and plain answers."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "selftest.py"


@pytest.fixture(scope="module")
def selftest():
    spec = importlib.util.spec_from_file_location("selftest", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
