"""From outcomes to lines, exit status and the plan that is shown."""

from __future__ import annotations

import os
import re
import signal

import pytest

from causalclip.runs import command, perform
from causalclip.runs.pairs import divided, parse
from causalclip.runs.perform import duration
from causalclip.runs.plan import PlanError, Request, plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.schedule import Outcome
from causalclip.runs.stop import Stop


@pytest.fixture
def runs(tmp_path):
    """Two trainings, each with its test."""
    request = Request(
        PROTOCOLS["base2new"], ("CoOp", "MaPLe"), ("handwritten_digits",), output=tmp_path
    )
    return plan(request, list)


def engine(*outcomes, interrupted=False):
    """An engine that answers with these outcomes."""

    def answer(runs, stop):
        yield from outcomes
        stop.asked = interrupted

    return answer


def test_a_failure_is_a_line_with_its_log_and_listed_at_the_end(runs, capsys):
    runs[0].folder.mkdir(parents=True)
    (runs[0].folder / "log.txt").touch()
    ended = [Outcome(runs[0], "failed", "a loss that is NaN"), Outcome(runs[2], "finished")]
    assert perform.perform(runs[::2], engine(*ended)) == 1
    out, err = capsys.readouterr()
    log = runs[0].folder / "log.txt"
    assert f"failed: {runs[0].folder}: a loss that is NaN (log: {log})" in out
    assert f"not finished: {runs[0].folder}" in err
    assert str(runs[2].folder) not in err


def test_a_run_that_is_tried_again_is_counted_once(runs, capsys):
    ended = [Outcome(runs[0], "again", "SIGKILL"), Outcome(runs[0], "finished")]
    assert perform.perform(runs[:1], engine(*ended)) == 0
    assert "again: " in capsys.readouterr().out


def test_after_a_stop_it_is_said_how_many_are_left(runs, capsys):
    done = [Outcome(runs[0], "finished")]
    assert perform.perform(runs, engine(*done, interrupted=True)) == 130
    assert "stopped with 3 runs left: the same command goes on" in capsys.readouterr().err


def test_one_interrupt_lets_runs_end_and_the_second_ends_all_at_once(capsys):
    before = signal.getsignal(signal.SIGINT)
    with Stop().listening() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "what is at work ends first" in capsys.readouterr().err


def test_a_duration_is_said_as_people_do():
    assert [duration(s) for s in (42, 600, 3 * 3600 + 300)] == ["42 s", "10 min", "3 h 05 min"]


# Grids


def test_a_grid_is_every_combination_in_a_folder_of_its_own(tmp_path):
    points = command.grid(["TRAINER.CDC.N_TEMPLATES=1,2", "OPTIM.LR=0.1,0.2,0.3"])
    assert len(points) == 6
    line = ["lodo", "--methods", "CDC", "--datasets", "causal_shapes", "--output", str(tmp_path)]
    asked = command.request(parse(line, command.parser()))
    found = command.sweep(asked, points, dry=True)
    names = {run.folder.parent.name for run in found}
    assert len(names) == 6 and "tiny_m4,LR=0.3,N_TEMPLATES=1" in names
    assert len({run.folder for run in found}) == len(found) == 6 * 4 * 3


def test_a_sweep_of_one_methods_setting_leaves_the_others_one_run_each():
    request = Request(PROTOCOLS["base2new"], ("CDC", "CoOp"), ("handwritten_digits",), ("1",))
    points = command.grid(["TRAINER.CDC.N_TEMPLATES=1,2", "OPTIM.LR=0.1"])
    runs = command.sweep(request, points, dry=True)
    names = {run.folder.parent.name for run in runs if run.part == "train_base"}
    swept = {f"tiny_m4,LR=0.1,N_TEMPLATES={m}" for m in (1, 2)}
    assert names == {"tiny,LR=0.1", *swept}
    assert len(runs) == 6


def test_commas_in_brackets_divide_no_values():
    assert command.grid(["TRAINER.CDC.BETA=[1,2],(3,4)"]) == [
        ("TRAINER.CDC.BETA", "[1,2]"),
        ("TRAINER.CDC.BETA", "(3,4)"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TRAINER.CDC.N_TEMPLATE=1", "no setting TRAINER.CDC.N_TEMPLATE; did you mean .*TEMPLATES"),
        ("TRAINER.CDC.BETA", "--grid must be KEY=V1,V2, got TRAINER.CDC.BETA"),
        ("beta=1", "--grid must be KEY=V1,V2, got beta=1"),
    ],
)
def test_a_grid_of_nothing_is_refused(text, said):
    with pytest.raises(PlanError, match=said):
        command.grid([text])


def test_a_key_behind_grid_is_a_grid_without_values():
    assert divided(["--grid", "OPTIM.LR", "OPTIM.LR", "0.1", "--grid"]) == (
        ["--grid", "OPTIM.LR", "--grid"],
        ["OPTIM.LR", "0.1"],
    )


def test_a_plan_ends_in_its_count(runs, tmp_path, capsys):
    perform.show(runs, tmp_path)
    *lines, count = capsys.readouterr().out.splitlines()
    assert count == "# 4 runs: 4 to run"
    assert all(re.match("causalclip train --protocol base2new ", line) for line in lines)
