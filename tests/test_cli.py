"""The command `causalclip`: fast start, help and messages for wrong arguments."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from one_process import fork

import causalclip
from causalclip import cli
from causalclip.datasets import causal_shapes
from causalclip.errors import UserError
from causalclip.runs import command, perform, progress
from causalclip.runs.flags import parse

# Each call in a fork of a process that has imported nothing but the command.
FORKED = """
import io, json, os, sys
from causalclip import cli
for words in json.loads(sys.argv[1]):
    if not os.fork():
        sys.stdout = io.StringIO()
        try:
            status = cli.main(words.split())
        except SystemExit as ended:
            status = ended.code
        answer = words, status, sys.stdout.getvalue(), [*sys.modules]
        os.write(1, (json.dumps(answer) + "\\n").encode())
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, str, set[str]]]:
    """Exit status, output and imported modules of each call for help or version."""
    calls = ["--version", "--help", *(f"{name} --help" for name in cli.COMMANDS)]
    command = [sys.executable, "-c", FORKED, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = map(json.loads, done.stdout.splitlines())
    return {call: (status, printed, set(modules)) for call, status, printed, modules in rows}


def test_the_version_is_that_of_the_distribution(answers):
    assert answers["--version"][:2] == (0, f"causalclip {causalclip.__version__}\n")


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_every_command_explains_itself_under_its_name_without_slow_imports(name, answers):
    status, printed, imported = answers[f"{name} --help".strip()]
    assert status == 0
    assert printed.startswith(f"usage: causalclip {name}")
    assert not {"torch", "scipy.stats", "matplotlib"} & imported
    if name in ("run", "tune", "features"):
        assert "[KEY VALUE ...]" in printed


@pytest.mark.parametrize(
    "call", ["--version", "--help", "run --help", "train --help", "convert --help"]
)
def test_help_comes_at_once(call, answers):
    """Without a library of numbers and with few modules: 344 for `run`, 176 at most for others."""
    imported = answers[call][2]
    assert not {"torch", "numpy", "pandas", "scipy", "sklearn", "PIL"} & imported
    assert len(imported) < (500 if call == "run --help" else 250)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["rum"],
            (
                "unknown command rum; known: train run methods cost summarize fuse predict explain "
                "export detect report plot data tune features cache check digest convert; did you "
                "mean run"
            ),
        ),
        (["run", "base2nw"], "unknown protocol base2nw; known: base2new xd dg fewshot lodo open"),
        (["train", "--trainer", "CoOpp"], "causalclip train: error: unknown trainer CoOpp; known"),
        (["run", "lodo"], "--methods must name one or more of CDC CIPT CLIP_Adapter"),
        (["run", "lodo", "--methods", "CDCC"], "did you mean CDC"),
        (["run", "base2new", "--methods", "TipAdapter"], "TipAdapter cannot name the classes"),
        (["run", "base2new", "--methods", "CDC", "--datasets", "dtd"], "Give --data FOLDER"),
        (["run", "lodo", "--methods", "CDC", "OPTIM.LR"], "must come as KEY VALUE pairs"),
        (["run", "lodo", "--methods", "CDC", "--seeds", "x"], "SEED must be a number, got x"),
        (
            ["run", "lodo", "--methods", "CDC", "OPTIM.LR=0.1"],
            "settings come as KEY VALUE: write OPTIM.LR 0.1, not OPTIM.LR=0.1",
        ),
        (
            ["run", "base2new", "--methods", "CDC", "--datasets", "handwritten_digits"]
            + ["--data", ".", "--grid", "TRAINER.CDC.N_TEMPLATE=1"],
            "no setting TRAINER.CDC.N_TEMPLATE; did you mean TRAINER.CDC.N_TEMPLATES",
        ),
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
    with pytest.raises(UserError, match="begin with a key, got 16"):
        parse(["lodo", "16"], command.parser())


def test_bundled_data_are_built_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)
    monkeypatch.setattr(causal_shapes, "INSTANCES", 2)
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
    """The command in another process, during its first run; the process id of that run."""
    process = fork(interruptible, words, tmp_path / "said")
    deadline = time.monotonic() + 600
    while not list(tmp_path.rglob("log.txt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    (folder,) = {path.parent for path in tmp_path.rglob("log.txt")}
    yield process, json.loads((folder / "run.lock.json").read_text())["pid"]
    process.kill()
    process.join()


def interruptible(words, said):
    """Run the command as from a shell, with its output in a file and a pool of forks."""
    forked = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda _: forked
    with open(said, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(cli.main(words))


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
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    said = (tmp_path / "said").read_text()
    done = len(results(tmp_path))
    assert 1 <= done < 4  # what was at work has ended, nothing new was begun
    assert f"stopped with {4 - done} runs left: repeat the command to continue" in said
    assert "Traceback" not in said
    status, out = same_command()
    assert status == 0
    assert f"4 runs: {done} finished before, {4 - done} finished" in out
    assert len(results(tmp_path)) == 4


@pytest.mark.slow
def test_of_two_commands_at_one_folder_one_works_and_the_other_says_who_has_it_and_waits(
    at_work, same_command, tmp_path, monkeypatch
):
    process, holder = at_work
    os.kill(holder, signal.SIGSTOP)

    def line(outcome, label):
        if outcome.state == "busy":
            os.kill(holder, signal.SIGCONT)
        return told(outcome, label)

    told = progress.outcome_line
    monkeypatch.setattr(progress, "outcome_line", line)
    try:
        status, out = same_command()
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(holder, signal.SIGCONT)
    assert f"is at work: process {holder} on " in out
    process.join()
    assert process.exitcode == status == 0  # each has done a part, or waited for it
    assert len(results(tmp_path)) == 4


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("causalclip su", "summarize "),
        ("causalclip run base", "base2new "),
        ("causalclip run base2new --methods Zeroshot", "ZeroshotCLIP"),
        ("causalclip run lodo --datasets causal", "causal_shapes"),
        ("causalclip run base2new --methods CDC --cfg vit_b16_m", "vit_b16_m4"),
        (
            "causalclip run base2new --methods CDC --seeds 1 TRAINER.CDC.N_T",
            "TRAINER.CDC.N_TEMPLATES",
        ),
        ("causalclip summarize output --methods Ma", "MaPLe"),
        ("causalclip train --dataset", "--dataset-config-file "),
        ("causalclip train --trainer CoO", "CoOp"),
        ("causalclip train --trainer CoOp OPTIM.MAX", "OPTIM.MAX_EPOCH"),
    ],
)
def test_the_shell_completes(line, completed, tmp_path):
    out = tmp_path / "completions"
    variables = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    variables |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(out), "_ARGCOMPLETE_IFS": "\n"}
    command = [sys.executable, "-X", "importtime", "-m", "causalclip"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)
    assert "torch" not in done.stderr
    assert completed.strip() in out.read_text().replace(" ", "").split("\n")


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
