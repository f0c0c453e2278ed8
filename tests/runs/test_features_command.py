"""`causalclip features`: what it encodes is what the runs read."""

from __future__ import annotations

import pytest

from causalclip import cli
from causalclip.runs.features_command import built, main, parser, request
from causalclip.runs.flags import parse
from causalclip.runs.perform import with_data
from causalclip.runs.plan import plan


def test_two_jobs_encode_what_the_runs_then_read(
    data_root, random_clip, tmp_path, runs_here, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(tmp_path / "cache"))
    command = ["--datasets", "handwritten_digits", "--shots", "2", "--seeds", "1"]
    command += ["--data", str(data_root), "--methods", "ZeroshotCLIP", "LinearProbe", "CLIP_ICM"]
    command += ["--jobs", "2", "MODEL.BACKBONE.NAME", random_clip]
    command += ["TRAINER.CLIP_ICM.SELECT", "fixed", "TRAINER.CLIP_ICM.DIM_INV", "16"]
    command += ["TRAINER.CLIP_ICM.PROBE", "False"]
    assert main(command) == 0
    assert f"in {tmp_path / 'cache' / 'features'}" in capsys.readouterr().out
    assert not (tmp_path / "output").exists()
    kept = {path: path.stat().st_ino for path in (tmp_path / "cache/features").iterdir()}
    asked = with_data(request(parse(command, parser())), data_root.absolute())
    runs = plan(asked, lambda name: ())
    assert len(runs) == 3
    for run in runs:
        built(run.arguments).train()
    after = {path: path.stat().st_ino for path in (tmp_path / "cache/features").iterdir()}
    assert after == kept  # nothing was encoded that was not there


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--datasets", "digts"], "no data set, file or folder 'digts'"),
        (["--datasets", "handwritten_digits", "--jobs", "0"], "--jobs must be positive"),
        (["--datasets", "dtd", "--backbone", "vit"], "unknown BACKBONE vit"),
        (["--datasets", "dtd"], "Give --data FOLDER"),
    ],
)
def test_a_mistake_is_said_in_a_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)
    assert cli.main(["features", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_cache_that_is_switched_off_is_said(monkeypatch, capsys):
    monkeypatch.setenv("CAUSALCLIP_NO_CACHE", "1")
    assert main(["--datasets", "handwritten_digits"]) == 2
    assert "CAUSALCLIP_NO_CACHE is set" in capsys.readouterr().err
