"""What a machine makes of a run that another one sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from causalclip.runs import errand, train
from causalclip.runs.errand import Errand, Parcels, do, moved
from causalclip.runs.parcel import packed, unpack
from causalclip.runs.plan import Run
from causalclip.runs.recipes import CONFIGS


@pytest.fixture
def send(tmp_path, monkeypatch):
    """A function: does an errand with a training that writes its arguments as its result."""
    home = tmp_path / "home"
    home.mkdir()

    def write(arguments):
        out = Path(arguments[arguments.index("--output-dir") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text("\n".join([os.getcwd(), *arguments]))
        return 0

    def make(mark, parcels=None):
        arguments = ("--root", "data", "--output-dir", "out", "--model-dir", "learned")
        run = Run("fewshot", "train", Path("out"), arguments, draws=Path("data/digits"))
        return do(Errand(run, home, CONFIGS, mark, None, "runs"), parcels)

    # The run as the worker's `one` does it, without the streams that pytest has taken.
    monkeypatch.setattr(
        errand, "one", lambda main, arguments, show: "" if not main(arguments) else "x"
    )
    monkeypatch.setattr(train, "main", write)
    return make


def test_who_sees_the_senders_folder_works_in_it(send, tmp_path):
    (tmp_path / "mark").touch()
    before = os.getcwd()
    answer = send(tmp_path / "mark")
    assert (answer.reason, answer.parcel) == ("", None)
    written = (tmp_path / "home/out/results.json").read_text().splitlines()
    assert written == [str(tmp_path / "home"), "--root", "data", "--output-dir", "out"] + [
        "--model-dir",
        "learned",
    ]
    assert os.getcwd() == before


def test_who_does_not_asks_for_what_is_in_it(send, tmp_path):
    assert send(tmp_path / "mark").needs_parcels
    assert not (tmp_path / "home/out").exists()


def test_and_sends_its_files_back(send, tmp_path):
    checkpoint = tmp_path / "trained"
    checkpoint.mkdir()
    (checkpoint / "model.pth.tar-1").write_text("w")
    answer = send(tmp_path / "mark", Parcels(packed(checkpoint), b""))
    unpack(answer.parcel, tmp_path / "back")
    names = {path.name for path in (tmp_path / "back").iterdir()}
    assert names == {"results.json", "model.pth.tar-1"}  # what was there goes on from there
    arguments = (tmp_path / "back/results.json").read_text().splitlines()
    assert not Path(arguments[4]).exists()  # nothing of it is left here
    assert "out" not in arguments and "learned" not in arguments


def test_configurations_are_this_machines_own():
    sent = ("--config-file", "/theirs/configs/trainers/CoOp/a.yaml", "NAME", "/theirs/other")
    found = moved(sent, Path("/theirs/configs"), {})
    assert found == [
        "--config-file",
        str(CONFIGS / "trainers/CoOp/a.yaml"),
        "NAME",
        "/theirs/other",
    ]


def test_a_folder_that_stands_elsewhere_is_put_behind_its_flag():
    sent = ("--root", "a", "--output-dir", "a", "OPTIM.LR", "a")
    assert moved(sent, Path("/c"), {"--root": "b"}) == ["--root", "b", *sent[2:]]


def test_a_process_imports_nothing_heavy_before_its_first_run():
    code = (
        "import sys; from causalclip.runs import errand, local;"
        "print(*{'torch', 'numpy', 'dassl', 'PIL', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
