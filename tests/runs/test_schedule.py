"""Order and attempts: a test after its training, a dead process once more, each outcome once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from causalclip.runs import schedule as schedules
from causalclip.runs.plan import Request, Run, plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.schedule import Outcome, Schedule


@pytest.fixture
def runs(tmp_path):
    """Two trainings, each with its test."""
    request = Request(
        PROTOCOLS["base2new"], ("CoOp", "MaPLe"), ("handwritten_digits",), output=tmp_path
    )
    return [replace(run, draws=None) for run in plan(request, list)]


def finish(run: Run) -> None:
    run.folder.mkdir(parents=True)
    (run.folder / "results.json").write_text('{"metrics": {}}')


def test_a_test_begins_after_its_training_and_lets_others_go_first(runs):
    schedule = Schedule(runs)
    first, second = schedule.next(), schedule.next()
    assert (first, second) == (runs[0], runs[2])  # both trainings, neither of the tests
    assert schedule.next() is None
    finish(second)
    assert schedule.ended(second, "", 1.0).good
    assert schedule.next() == runs[3]


def test_a_test_whose_training_failed_is_not_begun(runs):
    schedule = Schedule(runs[:2])
    schedule.next()
    assert not schedule.ended(runs[0], "a loss that is NaN", 1.0).good
    outcome = schedule.next()
    assert isinstance(outcome, Outcome) and (outcome.run, outcome.state) == (runs[1], "waiting")


def test_a_run_whose_process_died_is_tried_once_more(runs):
    schedule = Schedule(runs[:1])
    assert schedule.next() == runs[0]
    assert schedule.died(runs[0], "SIGKILL").state == "again"
    assert schedule.next() == runs[0]
    assert schedule.died(runs[0], "SIGKILL").state == "failed"
    assert schedule.next() is None


def test_data_are_drawn_by_one_run_while_the_others_wait(runs, tmp_path):
    runs = [replace(run, draws=tmp_path / "digits") for run in runs]
    schedule = Schedule(runs)
    assert schedule.next() == runs[0]
    assert schedule.next() is None
    (tmp_path / "digits").mkdir()
    assert schedule.next() == runs[2]


def test_machines_that_draw_data_of_their_own_wait_for_nobody(runs, tmp_path):
    schedule = Schedule([replace(run, draws=tmp_path / "digits") for run in runs])
    schedule.data_apart = True
    assert [schedule.next().folder for _ in range(2)] == [runs[0].folder, runs[2].folder]


def test_a_run_that_another_process_has_is_said_once_and_waited_for(runs, monkeypatch):
    others = {runs[0].folder: "process 7 on a since b"}
    monkeypatch.setattr(schedules, "holder_of", lambda folder: others.get(folder, ""))
    schedule = Schedule(runs[:2])
    outcome = schedule.next()
    assert (outcome.state, outcome.reason) == ("busy", "is at work: process 7 on a since b")
    assert not outcome.final
    assert schedule.next() is None  # its test waits as well
    others.clear()
    finish(runs[0])
    assert schedule.next().state == "skipped"
    assert schedule.next() == runs[1]


def test_a_finished_run_needs_no_process(runs):
    finish(runs[0])
    assert Schedule(runs[:1]).next().state == "skipped"
