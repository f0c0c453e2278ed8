"""Runs one after the other, each in a process of its own; what is finished is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from causalclip.runs.plan import Run
from causalclip.runs.progress import brief


def finished(folder: Path) -> bool:
    """Whether a run has left its result."""
    return (folder / "results.json").is_file()


def train(arguments: Sequence[str], *, shortened: bool) -> int:
    """`causalclip train` in a process of its own; its exit status."""
    command = [sys.executable, "-m", "causalclip", "train", *arguments]
    if not shortened:
        return subprocess.run(command, check=False).returncode
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # lines as they come
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in brief(process.stdout):
            print(line, end="", flush=True)
    return process.returncode


def run_all(runs: Sequence[Run], *, shortened: bool = False) -> list[Run]:
    """Run what is not finished; those that failed, or wait for one that did."""
    failed = []
    for run in runs:
        if finished(run.folder):
            print(f"skip (finished): {run.folder}", flush=True)
        elif run.trained is not None and not finished(run.trained):
            failed.append(run)
        else:
            print(f"run: {run.folder}", flush=True)
            if train(run.arguments, shortened=shortened):
                failed.append(run)
    return failed
