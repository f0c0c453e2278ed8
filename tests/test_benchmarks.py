"""The benchmarks: every script says what it does, every documented command is one it takes."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from causalclip import plugin, trainers
from causalclip.clip.backbone import build_clip
from causalclip.clip.encode import encode_image
from causalclip.clip.interface import backbone_of
from causalclip.clip.texts import check_distinct_classes
from causalclip.engine.prompt_trainer import PromptTrainer

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
# What the scripts share has no main of its own.
SCRIPTS = sorted(f.name for f in BENCHMARKS.glob("*.py") if "__main__" in f.read_text())
COMMAND = re.compile(r"(?:python|bash) benchmarks/[^`\n]*")


@pytest.fixture
def helped(monkeypatch, capsys):
    """A function from a script to what it prints for --help, in this process."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def call(script: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        assert ended.value.code == 0
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_benchmark_says_what_it_does(script, helped):
    assert helped(script).startswith(f"usage: {script}")


def documented() -> list[str]:
    """The commands of benchmarks in the documents, without comments."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [call for file in files for call in COMMAND.findall(file.read_text())]
    return sorted({call.partition("#")[0].strip() for call in found})


@pytest.mark.parametrize("command", documented())
def test_every_documented_command_names_a_benchmark_and_its_options(command, helped):
    _, script, *arguments = command.split()
    name = script.removeprefix("benchmarks/")
    assert (BENCHMARKS / name).is_file()
    options = {word for word in arguments if word.startswith("--")}
    if name in SCRIPTS and options:
        assert options <= set(re.findall(r"--[\w-]+", helped(name)))


def test_the_cost_model_counts_every_method_that_learns_in_a_tower():
    facts = runpy.run_path(str(BENCHMARKS / "cost_model.py"))
    everything = [cls for m in plugin.modules_of(trainers) for cls in plugin.methods_of(m)]
    learners = {cls.__name__ for cls in everything if issubclass(cls, PromptTrainer)}
    on_features = {"CLIP_Adapter"}
    assert facts["TEXT_PROMPTS"] | facts["IMAGE_PROMPTS"] == learners - on_features


@pytest.mark.parametrize(("n", "depth"), [(0, 1), (2, 1), (4, 3), (4, 4)])
def test_the_limit_counts_the_image_towers_products(n, depth, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    limit, shapes = importlib.import_module("limit"), importlib.import_module("shapes")
    clip = build_clip(**shapes.SHAPES["tiny"]).requires_grad_(False)
    prompts = [torch.randn(n, 128, requires_grad=True) for _ in range(depth * bool(n))]
    with FlopCounterMode(display=False) as counter:
        features = encode_image(clip, torch.randn(4, 3, 32, 32), prompts)
        if prompts:
            features.sum().backward()
    needed = limit.image_step(limit.Tower(128, 4, 64), 4, 16, n, depth).needed
    # above it: the patches' own embedding, and attention's gradient for what does not learn
    assert needed < counter.get_total_flops() / 2 < 1.06 * needed


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_the_class_names_of_the_benchmarks_differ_as_texts(classes, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = importlib.import_module("shapes").NAMES[classes]
    assert len(names) == classes
    check_distinct_classes(names, backbone_of(build_clip()).tokenizer)


@pytest.fixture
def gpu(tmp_path):
    """A function (body of `python`, KEY=VALUE ...) -> how gpu.sh ends; without a body, ours."""

    def call(body: str = "", **environment: str) -> subprocess.CompletedProcess:
        if body:
            (tmp_path / "python").write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / "python").chmod(0o755)
        path = [str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {**os.environ, "PATH": os.pathsep.join(path), **environment}
        command = ["bash", str(BENCHMARKS / "gpu.sh"), "tiny"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return call


def test_the_tables_of_a_gpu_end_in_one_line_where_there_is_none(gpu):
    ended = gpu(CUDA_VISIBLE_DEVICES="")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no CUDA device" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_the_tables_of_a_gpu_are_made_in_every_precision_and_a_failure_stops_none(gpu, tmp_path):
    calls = tmp_path / "calls"
    ended = gpu(
        '[ "$1" = -c ] && { echo device; exit; }\n'
        f'echo "$@" >> {calls}\ncase "$*" in *limit.py*amp*) exit 1; esac'
    )
    asked = calls.read_text().splitlines()
    assert ended.returncode == 1
    assert all("gpu.sh: failed: limit.py" in line for line in ended.stderr.splitlines())
    for script in ("baselines.py", "text_tower.py", "limit.py"):
        for precision in ("fp32", "fp16", "bf16", "amp"):
            own = [call for call in asked if f"{script} " in call and f"cision {precision}" in call]
            assert all("--device cuda" in call for call in own)
            assert {"--compile" in call for call in own} == {True, False}


def test_the_tables_of_a_gpu_end_with_their_time(gpu):
    ended = gpu("echo device", BUDGET="0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("gpu.sh: no time left for: device_check.py --device cuda\n")
