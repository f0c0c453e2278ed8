"""The tutorial of a new method, docs/new_method.md, followed to the letter."""

from __future__ import annotations

import importlib
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
RECIPE = (ROOT / "docs" / "new_method.md").read_text()
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


# As `python train.py ...` twice: each in a process of its own, forked after what both import.
TRAIN = """
import json, os, runpy, sys
script, *lines = json.loads(sys.argv[1])
sys.path[0] = os.path.dirname(script)
import sklearn.metrics, torchmetrics, causalclip.runs.train
for line in lines:
    if not os.fork():
        sys.argv = [script, *line]
        runpy.run_path(script, run_name="__main__")
    assert os.wait()[1] == 0, line
"""


def arguments(folder: Path, data_root: Path, clip: str, out: str, *flags: str) -> list[str]:
    """The words after train.py; `out` are the classes and the folder of the run."""
    words = ["--import", "my_method", "--trainer", "MyMethod"]
    words += ["--root", data_root, "--output-dir", folder / out, "--backbone", clip]
    words += ["--config-file", folder / "tiny.yaml", "--seed", "1", *flags]
    words += ["DATASET.NAME", "HandwrittenDigits", "DATASET.NUM_SHOTS", "2", "USE_CUDA", "False"]
    return [str(word) for word in (*words, "DATASET.SUBSAMPLE_CLASSES", out)]


@pytest.fixture(scope="module")
def records(folder, data_root, random_clip) -> dict[str, dict]:
    """results.json of a training on the base classes and of its test on the new ones."""
    there = folder, data_root, random_clip
    evaluation = ("--eval-only", "--model-dir", str(folder / "base"))
    lines = [arguments(*there, "base"), arguments(*there, "new", *evaluation)]
    given = json.dumps([str(ROOT / "train.py"), *lines])
    command = [sys.executable, "-c", TRAIN, given]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {out: json.loads((folder / out / "results.json").read_text()) for out in ("base", "new")}


def test_the_method_trains_with_its_own_settings_and_leaves_results(records):
    trained = records["base"]
    assert trained["trainer"] == "MyMethod"
    assert trained["config"]["TRAINER"]["MYMETHOD"]["N_CTX"] == 3
    assert trained["training"]["learnable_parameters"] == 3 * 64  # N_CTX x the text width


def test_its_checkpoint_serves_new_classes(records):
    record = records["new"]
    assert record["classnames"] == ["five", "six", "seven", "eight", "nine"]
    assert record["metrics"]["n"] > 0


def test_a_file_laid_into_a_package_is_found_by_itself(tmp_path, monkeypatch):
    package = tmp_path / "methods_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "laid_in.py").write_text(textwrap.dedent(METHOD))
    monkeypatch.syspath_prepend(tmp_path)
    (module,) = plugin.modules_of(importlib.import_module("methods_of_a_test"))
    assert [method.__name__ for method in plugin.methods_of(module)] == ["MyMethod"]
