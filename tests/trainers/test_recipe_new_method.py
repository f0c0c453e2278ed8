"""CONTRIBUTING's recipe for a new method, followed to the letter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from causalclip import plugin

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "CONTRIBUTING.md").read_text()
(METHOD,) = re.findall(r"```python\n(.*?)```", RECIPE, flags=re.DOTALL)
SETTINGS = """\
INPUT:
  SIZE: (32, 32)
  TRANSFORMS: ["normalize"]
DATALOADER:
  NUM_WORKERS: 0
OPTIM:
  NAME: "sgd"
  LR: 0.002
  MAX_EPOCH: 1
TRAINER:
  MYMETHOD:
    N_CTX: 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The two files that the recipe asks for."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "my_method.py").write_text(textwrap.dedent(METHOD))
    (folder / "tiny.yaml").write_text(SETTINGS)
    return folder


def run(folder: Path, data_root: Path, clip: str, out: str, classes: str, *flags: str) -> dict:
    """One run of the command line in a process of its own; its results.json."""
    command = [sys.executable, ROOT / "train.py", "--import", "my_method", "--trainer", "MyMethod"]
    command += ["--root", data_root, "--output-dir", folder / out, "--backbone", clip]
    command += ["--config-file", folder / "tiny.yaml", "--seed", "1", *flags]
    command += ["DATASET.NAME", "HandwrittenDigits", "DATASET.NUM_SHOTS", "2", "USE_CUDA", "False"]
    command += ["DATASET.SUBSAMPLE_CLASSES", classes]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / out / "results.json").read_text())


@pytest.fixture(scope="module")
def trained(folder, data_root, random_clip) -> dict:
    return run(folder, data_root, random_clip, "base", "base")


def test_the_method_trains_with_its_own_settings_and_leaves_results(trained):
    assert trained["trainer"] == "MyMethod"
    assert trained["config"]["TRAINER"]["MYMETHOD"]["N_CTX"] == 3
    assert trained["training"]["learnable_parameters"] == 3 * 64  # N_CTX x the text width


def test_its_checkpoint_serves_new_classes(trained, folder, data_root, random_clip):
    flags = ("--eval-only", "--model-dir", str(folder / "base"))
    record = run(folder, data_root, random_clip, "new", "new", *flags)
    assert record["classnames"] == ["five", "six", "seven", "eight", "nine"]
    assert record["metrics"]["n"] > 0


def test_a_file_laid_into_a_package_is_found_by_itself(tmp_path, monkeypatch):
    package = tmp_path / "methods_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "laid_in.py").write_text(textwrap.dedent(METHOD))
    monkeypatch.syspath_prepend(tmp_path)
    import methods_of_a_test

    (module,) = plugin.modules_of(methods_of_a_test)
    assert [method.__name__ for method in plugin.methods_of(module)] == ["MyMethod"]
