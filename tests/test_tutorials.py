"""The tutorials, block by block, in a copy of the repository: what they say is done, and works.

A block with `title="needs ..."` is left out. A block below "Create `FILE`" is written to the file.
Commands and Python run in forks of one process of that copy (one_process.py), the runs of --jobs
one after the other: tests/runs/test_executor.py has the pool.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
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
            yield {"bash": ["/bin/bash", "-euc", body], "python": ["python", body]}[language]


def one_epoch(configs):
    """Shorten the trainings of the recipes below `configs`: an epoch of few steps."""
    changed = 0
    for recipe in configs.glob("trainers/**/*tiny*.yaml"):
        text, count = re.subn(r"(?<=MAX_EPOCH: )\d+", "1", recipe.read_text())
        text = re.sub(r"(?<=BATCH_SIZE: )8\b", "40", text)
        recipe.write_text(text)
        changed += count
    assert changed, "no recipe of the bundled CLIPs has a number of epochs"


@pytest.fixture
def copy(tmp_path, data_root) -> Path:
    """A copy of the repository; `data_root` only saves drawing the digits again."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    one_epoch(tmp_path / "configs")
    shutil.copytree(data_root, tmp_path / "data")
    return tmp_path


@pytest.fixture
def environment(copy):
    """The environment of a shell whose `causalclip` and `python` are those of the copy."""
    place, script = copy / "commands", Path(__file__).with_name("one_process.py")
    for name in ("causalclip", "python"):
        program = copy / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {script} {place} {name} "$@"\n')
        program.chmod(0o755)
    path = os.pathsep.join([str(copy / "bin"), os.environ["PATH"]])
    modules = os.pathsep.join([str(copy), str(copy / "minidassl")])
    made = {**os.environ, "PATH": path, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1"}
    made.pop("DATA", None)
    with subprocess.Popen([sys.executable, script, place], cwd=copy, env=made) as server:
        while not place.exists() and server.poll() is None:
            time.sleep(0.1)
        yield made
        server.kill()


@pytest.mark.slow
def test_the_tutorials_run_from_an_empty_folder(copy, environment):
    """Trainings have one epoch."""
    for step in (step for page in PAGES for step in steps(page)):
        if isinstance(step, tuple):
            (copy / step[0]).parent.mkdir(exist_ok=True, parents=True)
            (copy / step[0]).write_text(step[1])
            continue
        done = subprocess.run(step, cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{step[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert (copy / "output" / "report.html").is_file()
