"""`causalclip features`: what it encodes is what the runs read."""

from __future__ import annotations

import pytest

from causalclip import cli
from causalclip.engine import base
from causalclip.runs.features_command import built, main, parser, request
from causalclip.runs.pairs import parse
from causalclip.runs.perform import with_data
from causalclip.runs.plan import plan


@pytest.fixture
def encoded(monkeypatch):
    """Counts the images that go through the image tower in this process."""
    count, encode = [0], base.encode_image

    def counting(model, images, *prompts):
        count[0] += len(images)
        return encode(model, images, *prompts)

    monkeypatch.setattr(base, "encode_image", counting)
    return count


def test_two_workers_encode_what_the_runs_then_read(
    data_root, random_clip, tmp_path, monkeypatch, encoded, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAUSALCLIP_CACHE", str(tmp_path / "cache"))
    command = ["--dataset", "handwritten_digits", "--shots", "2", "--seeds", "1"]
    command += ["--data", str(data_root), "--methods", "ZeroshotCLIP", "LinearProbe", "CLIP_ICM"]
    command += ["--workers", "2", "MODEL.BACKBONE.NAME", random_clip]
    command += ["TRAINER.CLIP_ICM.SELECT", "fixed", "TRAINER.CLIP_ICM.DIM_INV", "16"]
    command += ["TRAINER.CLIP_ICM.PROBE", "False"]
    assert main(command) == 0
    assert f"in {tmp_path / 'cache' / 'features'}" in capsys.readouterr().out
    assert not (tmp_path / "output").exists()
    encoded[0] = 0
    asked = with_data(request(parse(command, parser())), data_root)
    runs = plan(asked, lambda name: ())
    assert len(runs) == 3
    for run in runs:
        built(run).train()
    assert encoded == [0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "digts"], "unknown data set digts"),
        (["--dataset", "handwritten_digits", "--workers", "0"], "--workers must be positive"),
        (["--dataset", "dtd", "--backbone", "vit"], "unknown BACKBONE vit"),
        (["--dataset", "dtd"], "Give --data FOLDER"),
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
    assert main(["--dataset", "handwritten_digits"]) == 2
    assert "CAUSALCLIP_NO_CACHE is set" in capsys.readouterr().err
