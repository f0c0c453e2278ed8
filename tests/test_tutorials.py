"""The tutorials, block by block, in a copy of the repository: what they say is done, and works.

A block with `title="needs ..."` is left out. A block below "Create `FILE`" is written to the file.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/first_run.md", "docs/own_pictures.md", "docs/new_method.md"]
"""In this order: a later page uses the results of an earlier one."""
FOLDERS = ("causalclip", "configs", "datasets", "minidassl", "scripts", "trainers")
FENCE = re.compile(r'^```(\w+)( title="needs [^"]*")?\n(.*?)^```', re.DOTALL | re.MULTILINE)


def steps(page):
    """The command of each block that runs, or the file to write and its text."""
    text, end = (ROOT / page).read_text(), 0
    for fence in FENCE.finditer(text):
        language, needs, body = fence.groups()
        created = re.findall(r"^Create `([^`]+)`", text[end : fence.start()], re.MULTILINE)
        end = fence.end()
        if created:
            yield created[-1], body
        elif not needs and language in ("bash", "python"):
            yield {"bash": ["/bin/bash", "-euc", body], "python": [sys.executable, "-c", body]}[
                language
            ]


def one_epoch(configs):
    """Shorten the trainings of the recipes below `configs`."""
    changed = 0
    for recipe in configs.glob("trainers/**/*tiny*.yaml"):
        text, count = re.subn(r"(?<=MAX_EPOCH: )\d+", "1", recipe.read_text())
        recipe.write_text(text)
        changed += count
    assert changed, "no recipe of the bundled CLIPs has a number of epochs"


@pytest.mark.slow
def test_the_tutorials_run_from_an_empty_folder(tmp_path, data_root):
    """`data_root` only saves drawing the digits again; trainings have one epoch."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    one_epoch(tmp_path / "configs")
    shutil.copytree(data_root, tmp_path / "data")
    program = tmp_path / "bin" / "causalclip"  # that of this copy
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m causalclip "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    modules = os.pathsep.join([str(tmp_path), str(tmp_path / "minidassl")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1"}
    environment.pop("DATA", None)
    for step in (step for page in PAGES for step in steps(page)):
        if isinstance(step, tuple):
            (tmp_path / step[0]).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / step[0]).write_text(step[1])
            continue
        done = subprocess.run(step, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{step[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (tmp_path / "output" / "report.html").is_file()
