"""Order and retries: a test runs after its training, a run is repeated if its process dies."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace

import pytest

from causalclip.runs import schedule as schedules
from causalclip.runs.plan import plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.request import Request
from causalclip.runs.schedule import Schedule, Stop
from causalclip.runs.worker import Outcome


class Scripted:
    """An executor whose tasks end at once, with the given answers for each run."""

    died = BrokenExecutor

    def __init__(self, answers=None, places=1):
        self.answers, self.begun = {k: list(v) for k, v in (answers or {}).items()}, []
        self.places = lambda: places

    def submit(self, function, run, *_):
        folder = str(run.folder)
        self.begun.append(folder)
        answer = self.answers.get(folder, ["finished"]).pop(0)
        future = Future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(Outcome(run, answer))
        return future


@pytest.fixture
def runs(tmp_path):
    """Two trainings, each with its test; their results exist already."""
    request = Request(
        PROTOCOLS["base2new"], ("CoOp", "MaPLe"), ("handwritten_digits",), output=tmp_path
    )
    runs = [replace(run, draws=None) for run in plan(request, list)]
    for run in runs:
        run.folder.mkdir(parents=True)
        (run.folder / "results.json").write_text('{"metrics": {}}')
    return runs


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(schedules, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(schedules, "LOOK_SECONDS", 0.01)


def outcomes(runs, executor, stop=None):
    return [(o.run, o.state) for o in Schedule(runs, executor).outcomes(stop or Stop())]


def test_a_test_begins_after_its_training_and_lets_others_go_first(runs):
    executor = Scripted(places=2)
    outcomes(runs, executor)
    begun = [executor.begun.index(str(run.folder)) for run in runs]
    assert begun[:2] == [0, 2] and begun[2] == 1 and begun[3] == 3


def test_a_test_whose_training_failed_is_not_begun(runs):
    (runs[0].folder / "results.json").unlink()
    executor = Scripted({str(runs[0].folder): ["failed"]})
    assert outcomes(runs[:2], executor) == [(runs[0], "failed"), (runs[1], "waiting")]


DIES = BrokenExecutor("killed")


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([DIES] * 3, "again again failed"),
        ([DIES, "finished"], "again finished"),
        (["busy", "busy", "finished"], "busy finished"),  # another process does it
        (["skipped"], "skipped"),  # another command has finished it meanwhile
    ],
)
def test_a_run_whose_process_dies_is_tried_three_times_and_a_busy_one_told_once(
    answers, told, runs
):
    executor = Scripted({str(runs[0].folder): answers})
    found = outcomes([runs[0], runs[2]], executor)
    assert found == [(runs[0], state) for state in told.split()] + [(runs[2], "finished")]


def test_a_finished_run_needs_no_process(runs, monkeypatch):
    monkeypatch.setattr(schedules, "state_of", lambda run: schedules.State.FINISHED)
    executor = Scripted()
    assert outcomes(runs[:1], executor) == [(runs[0], "skipped")]
    assert not executor.begun


def test_a_machine_that_does_not_see_the_output_folder_is_a_failure(runs):
    (runs[0].folder / "results.json").unlink()
    (outcome,) = Schedule(runs[:1], Scripted()).outcomes(Stop())
    assert outcome.state == "failed" and "every machine must see the output" in outcome.reason


def test_after_a_stop_nothing_new_is_begun(runs):
    stop, executor = Stop(), Scripted()
    found = []
    for outcome in Schedule(runs, executor).outcomes(stop):
        found.append(outcome.run)
        stop.asked = 2
    assert found == runs[:1]
