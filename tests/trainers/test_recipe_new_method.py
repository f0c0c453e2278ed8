"""The tutorial of a new method, docs/new_method.md, followed to the letter."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from pathlib import Path

import pytest
from one_process import fork

from causalclip import cli

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


def called_in(folder, words):
    os.chdir(folder)
    sys.exit(cli.main(words))


@pytest.fixture(scope="module")
def records(folder, data_root, random_clip) -> dict[str, dict]:
    """results.json of a training on the base classes and of its test on the new ones."""
    words = ["run", "base2new", "--import", "my_method", "--methods", "MyMethod", "--seeds", "1"]
    words += ["--recipe", "tiny.yaml", "--backbone", str(random_clip), "--shots", "2"]
    words += ["--datasets", "handwritten_digits", "--data", str(data_root), "--no-table"]
    command = fork(called_in, folder, words)
    command.join()
    assert command.exitcode == 0
    written = (folder / "output").glob("**/results.json")
    results = [json.loads(path.read_text()) for path in written]
    return {record["subsample_classes"]: record for record in results}


@pytest.mark.usefixtures("registry_as_before")
def test_a_method_without_configurations_needs_one(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = ["run", "base2new", "--import", "my_method", "--methods", "MyMethod"]
    assert cli.main([*words, "--datasets", "handwritten_digits"]) == 2
    assert capsys.readouterr().err == (
        "causalclip run: error: MyMethod has no configurations: name a FILE.yaml as its recipe\n"
    )


def test_the_method_trains_with_its_own_settings_and_leaves_results(records):
    trained = records["base"]
    assert trained["trainer"] == "MyMethod"
    assert trained["config"]["TRAINER"]["MYMETHOD"]["N_CTX"] == 3
    assert trained["training"]["learnable_parameters"] == 3 * 64  # N_CTX x the text width


def test_its_checkpoint_serves_new_classes(records):
    record = records["new"]
    assert record["classnames"] == ["five", "six", "seven", "eight", "nine"]
    assert record["metrics"]["n"] > 0
