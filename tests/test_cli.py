"""The command `causalclip`: quick answers, and what it says to mistakes."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import causalclip
from causalclip import cli
from causalclip.runs import command, perform
from causalclip.runs.pairs import parse
from causalclip.runs.plan import PlanError


def call(*arguments, cwd=None):
    words = [sys.executable, "-m", "causalclip", *arguments]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=os.environ)


def cpu_seconds(*arguments) -> float:
    """CPU time of the command, in the better of two calls: the first may read from a cold disk."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert call(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once(), once())


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"]])
def test_help_and_version_come_at_once(arguments):
    assert cpu_seconds(*arguments) < 0.6  # 0.3 is promised; a busy machine counts more


def test_a_plan_comes_without_torch():
    arguments = ["run", "lodo", "--methods", "CDC", "--datasets", "causal_shapes", "--dry-run"]
    assert cpu_seconds(*arguments) < 0.8


def test_the_version_is_that_of_the_distribution():
    assert call("--version").stdout.strip() == f"causalclip {causalclip.__version__}"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_under_its_name(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: causalclip {name}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["rum"],
            (
                "unknown command rum; known: train run summarize predict explain export report "
                "plot data features cache check convert; did you mean run"
            ),
        ),
        (["run", "base2nw"], "unknown protocol base2nw; known: base2new xd dg fewshot lodo open"),
        (["train", "--trainer", "CoOpp"], "causalclip train: error: unknown trainer 'CoOpp'"),
        (["run", "lodo"], "--methods must name one or more of CDC CLIP_Adapter"),
        (["run", "lodo", "--methods", "CDCC"], "did you mean CDC"),
        (["run", "base2new", "--methods", "TipAdapter"], "TipAdapter cannot name the classes"),
        (["run", "base2new", "--methods", "CDC", "--datasets", "dtd"], "Give --data FOLDER"),
        (["run", "lodo", "--methods", "CDC", "OPTIM.LR"], "must come as KEY VALUE pairs"),
        (["run", "lodo", "--methods", "CDC", "--seeds", "x"], "SEED must be a number, got x"),
    ],
)
def test_a_mistake_is_said_in_a_line_before_any_work(
    arguments, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_settings_may_stand_anywhere_and_no_list_takes_them():
    line = "lodo --methods CDC CLIP_ICM --seeds 1 2 OPTIM.LR -1 TRAINER.CDC.BETA 2. --jobs 3"
    args = parse(line.split(), command.parser())
    assert (args.methods, args.seeds, args.jobs) == (["CDC", "CLIP_ICM"], ["1", "2"], 3)
    assert args.settings == ["OPTIM.LR", "-1", "TRAINER.CDC.BETA", "2."]
    with pytest.raises(PlanError, match="begin with a key, got 16"):
        parse(["lodo", "16"], command.parser())


def test_bundled_data_are_built_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)
    words = ["lodo", "--methods", "CDC", "--datasets", "causal_shapes"]
    asked = perform.with_data(command.request(parse(words, command.parser())), None)
    assert asked.data.resolve() == tmp_path / "data" and asked.data.is_dir()


LINE = "run base2new --methods ZeroshotCLIP --datasets handwritten_digits --seeds 1 2 --no-table"


@pytest.fixture
def words(data_root, random_clip, tmp_path):
    """A command of four short runs, one after the other, below tmp_path."""
    settings = ["MODEL.BACKBONE.NAME", random_clip, "USE_CUDA", "False"]
    folders = ["--data", str(data_root), "--output", str(tmp_path / "out")]
    return [*LINE.split(), *folders, *settings]


@pytest.fixture
def at_work(words, tmp_path):
    """The command as a process of its own, with its first run begun; and who holds the folder."""
    command = [sys.executable, "-m", "causalclip", *words]
    with open(tmp_path / "said", "w", encoding="utf-8") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("log.txt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    (folder,) = {path.parent for path in tmp_path.rglob("log.txt")}
    with open(folder / "run.lock", encoding="utf-8") as file:
        yield process, json.load(file)["pid"]
    process.kill()
    process.wait()


def results(folder):
    return sorted(folder.rglob("results.json"))


@pytest.fixture
def same_command(words, runs_here, capfd):
    """A function () -> (exit status, output) of the same command, done in this process."""

    def call():
        status = cli.main(words)
        return status, capfd.readouterr().out

    return call


@pytest.mark.slow
def test_an_interrupted_command_ends_cleanly_and_the_same_command_goes_on(
    at_work, same_command, tmp_path
):
    process, _ = at_work
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    said = (tmp_path / "said").read_text()
    done = len(results(tmp_path))
    assert 1 <= done < 4  # what was at work has ended, nothing new was begun
    assert f"stopped with {4 - done} runs left: the same command goes on" in said
    assert "Traceback" not in said
    status, out = same_command()
    assert status == 0
    assert out.count("skip (finished): ") == done
    assert len(results(tmp_path)) == 4


@pytest.mark.slow
def test_of_two_commands_at_one_folder_one_works_and_the_other_says_who_has_it_and_waits(
    at_work, same_command, tmp_path, monkeypatch
):
    process, holder = at_work
    os.kill(holder, signal.SIGSTOP)
    heard = []

    def line(outcome):
        heard.append(outcome.reason)
        if outcome.state == "busy":
            os.kill(holder, signal.SIGCONT)
        return told(outcome)

    told = perform.line
    monkeypatch.setattr(perform, "line", line)
    try:
        status, out = same_command()
    finally:
        os.kill(holder, signal.SIGCONT)
    assert f"is at work: process {holder} on " in out
    assert process.wait() == status == 0  # each has done a part, or waited for it
    assert len(results(tmp_path)) == 4


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("causalclip su", "summarize "),
        ("causalclip run base", "base2new "),
        ("causalclip run base2new --methods Zeroshot", "ZeroshotCLIP"),
        ("causalclip train --dataset", "--dataset-config-file "),
    ],
)
def test_the_shell_completes(line, completed, tmp_path):
    out = tmp_path / "completions"
    variables = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    variables |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(out), "_ARGCOMPLETE_IFS": "\n"}
    subprocess.run(
        [sys.executable, "-m", "causalclip"], env={**os.environ, **variables}, check=True
    )
    assert completed in out.read_text().split("\n")


def test_a_reader_that_goes_away_is_no_traceback():
    command = f"{sys.executable} -m causalclip data list | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_behind_stdout_is_said_in_a_line():
    command = f"{sys.executable} -m causalclip data list > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch("causalclip data: error: .*No space left on device\n", done.stderr)
