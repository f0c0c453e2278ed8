"""Printed lines and exit status of outcomes, and the printed plan."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from dataclasses import replace

import pytest

from causalclip import cli
from causalclip.errors import UserError
from causalclip.records.identity import Identity, write_run
from causalclip.records.results import Result
from causalclip.runs import command, perform, progress
from causalclip.runs.configuration import planned_settings
from causalclip.runs.executor import LocalPool
from causalclip.runs.flags import parse
from causalclip.runs.plan import plan
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.request import Request
from causalclip.runs.worker import Outcome


@pytest.fixture
def runs(tmp_path):
    """Two trainings, each with its test."""
    request = Request(
        PROTOCOLS["base2new"], ("CoOp", "MaPLe"), ("handwritten_digits",), output=tmp_path
    )
    return plan(request, list)


@pytest.fixture
def answered(monkeypatch):
    """A function that sets the outcomes of the runs, and a signal after the last of them."""

    def answer(*outcomes, number=0):
        def yielded(self, stop, each_look):
            yield from outcomes
            if number:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(perform.Schedule, "outcomes", yielded)

    return answer


def test_a_failure_says_its_reason_once_and_its_log_at_the_end(runs, answered, capsys):
    for run in runs[::2]:
        run.folder.mkdir(parents=True)
        (run.folder / "log.txt").touch()
    (runs[2].folder / "results.json").write_text('{"metrics": {"accuracy": 71.25}}')
    answered(
        Outcome(runs[0], "failed", "a loss that is NaN"), Outcome(runs[2], "finished", seconds=3.4)
    )
    assert perform.perform(runs[::2], LocalPool()) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "failed    CoOp  handwritten_digits  seed 1  train_base: a loss that is NaN",
        "finished  MaPLe  handwritten_digits  seed 1  train_base  71.2 %  3 s",
        "2 runs: 1 failed, 1 finished",
    ]
    assert err == f"failed, see {runs[0].folder / 'log.txt'}\n"


def test_a_run_that_is_tried_again_is_counted_once(runs, answered, capsys):
    answered(Outcome(runs[0], "again", "SIGKILL"), Outcome(runs[0], "skipped"))
    assert perform.perform(runs[:1], LocalPool()) == 0
    out = capsys.readouterr().out
    assert out.startswith("again ") and out.endswith("\n1 runs: 1 finished before\n")


def test_a_bundled_set_is_built_once_as_its_first_run_builds_it(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # its data folder has nothing yet
    built = []
    monkeypatch.setattr(perform, "data_of", built.append)
    perform.build_bundled(runs)
    assert built == runs[:1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_it_is_told_how_many_are_left(number, runs, answered, capsys):
    before = signal.getsignal(number)
    answered(Outcome(runs[0], "skipped"), number=number)
    assert perform.perform(runs, LocalPool()) == 128 + number
    assert "stopped with 3 runs left: repeat the command to continue" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_ctrl_c_between_the_last_run_and_the_table_is_no_traceback(
    answered, tmp_path, monkeypatch, capsys, request
):
    # A process that was started in the background ignores SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)

    answered()
    monkeypatch.setattr(command, "print_table", interrupted)
    monkeypatch.setattr(command, "has_result", lambda folder: True)
    line = ["run", "lodo", "--methods", "CDC", "--datasets", "causal_shapes"]
    line += ["--data", str(tmp_path), "--output", str(tmp_path)]
    (tmp_path / "causal_shapes").mkdir()
    assert cli.main(line) == 130
    assert "Traceback" not in capsys.readouterr().err


# Grids


def test_a_grid_is_every_combination_in_a_folder_of_its_own(tmp_path):
    points = command.grid(["TRAINER.CDC.N_TEMPLATES=1,2", "OPTIM.LR=0.1,0.2,0.3"])
    assert len(points) == 6
    line = ["lodo", "--methods", "CDC", "--datasets", "causal_shapes", "--output", str(tmp_path)]
    asked = command.request(parse(line, command.parser()))
    found, _ = command.sweep(asked, points, dry=True)
    names = {run.folder.parent.name for run in found}
    assert len(names) == 6 and "tiny_m4,LR=0.3,N_TEMPLATES=1" in names
    assert len({run.folder for run in found}) == len(found) == 6 * 4 * 3


def test_a_sweep_of_one_methods_setting_leaves_the_others_one_run_each():
    request = Request(PROTOCOLS["base2new"], ("CDC", "CoOp"), ("handwritten_digits",), ("1",))
    points = command.grid(["TRAINER.CDC.N_TEMPLATES=1,2", "OPTIM.LR=0.1"])
    runs, _ = command.sweep(request, points, dry=True)
    names = {run.folder.parent.name for run in runs if run.part == "train_base"}
    swept = {f"tiny_m4,LR=0.1,N_TEMPLATES={m}" for m in (1, 2)}
    assert names == {"tiny,LR=0.1", *swept}
    assert len(runs) == 6


def test_commas_in_brackets_divide_no_values():
    points = command.grid(["TRAINER.CDC.BETA=[1,2],(3,4)"])
    assert points == [("TRAINER.CDC.BETA", "[1,2]"), ("TRAINER.CDC.BETA", "(3,4)")]


@pytest.mark.parametrize("text", ["TRAINER.CDC.BETA", "beta=1"])
def test_a_grid_of_nothing_is_refused(text):
    with pytest.raises(UserError, match=f"--grid must be KEY=V1,V2, got {text}"):
        command.grid([text])


def test_a_key_behind_grid_is_a_grid_without_values():
    args = parse(["lodo", "OPTIM.LR", "0.1", "--grid", "OPTIM.LR"], command.parser())
    assert (args.grid, args.settings) == (["OPTIM.LR"], ["OPTIM.LR", "0.1"])


# Plans


def test_a_plan_is_a_table_of_methods_and_data_with_what_is_left(runs, capsys):
    runs[0].folder.mkdir(parents=True)
    write_run(runs[0].folder, Identity(planned_settings(runs[0].arguments)), {})
    (runs[0].folder / "results.json").write_text('{"metrics": {"accuracy": 50.0}}')
    progress.print_plan(runs)
    header, coop, maple, _, count, time = capsys.readouterr().out.splitlines()
    assert header.split() == "method data shots seeds runs done left time left".split()
    assert coop.split() == "CoOp handwritten_digits 16 1 2 1 1 unknown".split()
    assert maple.split() == "MaPLe handwritten_digits 16 1 2 0 2 unknown".split()
    assert count == "4 runs: 1 done, 3 left (--commands prints them)"
    assert time.startswith("time left, one run at a time: unknown (")


def test_the_time_left_is_the_mean_of_finished_seeds_and_unknown_without_one(tmp_path):
    asked = Request(PROTOCOLS["base2new"], ("CoOp", "MaPLe"), ("handwritten_digits",), ("1",))
    runs = plan(replace(asked, output=tmp_path), list)
    train, *others = runs
    record = {"schema": 2, "trainer": "CoOp", "backbone": "tiny", "dataset": "D", "shots": 16}
    record |= {"subsample_classes": "base", "classnames": ["a"], "metrics": {"accuracy": 50.0}}
    for seed, seconds in ((2, 10.0), (3, 30.0)):
        folder = train.folder.with_name(f"seed{seed}")
        more = {"training": {"seconds": seconds}, "evaluation": {"seconds": 1.0}, "seed": seed}
        Result.of_record(record | more).write(folder)
    seconds = progress.mean_seconds(runs)
    assert (train.part, seconds[0]) == ("train_base", 21.0)
    assert len(others) == 3 and all(map(math.isnan, seconds[1:]))
    assert progress.time_left(seconds) == "21 s + 3 unknown"
    assert progress.time_left([1800.0, 3600.0]) == "1.5 h"
    assert progress.time_left([60.0, 60.0]) == "2 min"


def test_the_commands_of_a_plan_hold_the_data_that_was_given(tmp_path, monkeypatch, capsys):
    line = ["run", "lodo", "--methods", "CDC", "--datasets", "causal_shapes", "--commands"]
    assert cli.main([*line, "--data", "/given", "--output", str(tmp_path)]) == 0
    *lines, count = capsys.readouterr().out.splitlines()
    assert count == "# 12 runs: 12 to run"
    for line in lines:
        assert re.match("causalclip train --source-domains ", line) and "--root /given " in line


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("TRAINER.CDC.N_CTX 0", "TRAINER.CDC.N_CTX must be an int in .*, got 0"),
        (
            "TRAINER.CDC.IMAGE_PROJECTION 2.0 TRAINER.CDC.VISION none",
            "IMAGE_PROJECTION must be 0 where TRAINER.CDC.VISION is none, got 2.0",
        ),
    ],
)
def test_settings_that_a_method_refuses_are_named_before_any_run(pairs, message, tmp_path, capsys):
    words = ["run", "base2new", "--methods", "CoOp", "CDC", "--datasets", "handwritten_digits"]
    output = ["--output", str(tmp_path / "output"), "--data", str(tmp_path)]
    assert cli.main([*words, *output, *pairs.split()]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "output").exists()


def test_labels_name_what_differs():
    asked = Request(PROTOCOLS["fewshot"], ("CDC",), ("dtd",), shots=("1", "2"))
    assert list(progress.run_labels(plan(asked, list)).values()) == [
        "CDC  dtd  1 shots  seed 1  train",
        "CDC  dtd  2 shots  seed 1  train",
    ]
    swept, _ = command.sweep(asked, command.grid(["OPTIM.LR=0.1,0.2"]), dry=True)
    first, *_ = progress.run_labels(swept).values()
    assert first == "CDC  dtd  1 shots  LR=0.1  seed 1  train"


@pytest.mark.parametrize(
    ("terminal", "no_color", "shown"),
    [(True, "", "\x1b[31mfailed\x1b[0m"), (True, "1", "failed"), (False, "", "failed")],
)
def test_colours_are_for_terminals_unless_no_color_is_set(terminal, no_color, shown, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert progress.coloured("failed", 31) == shown
