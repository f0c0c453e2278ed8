"""The type check and the linter see every folder of Python, those behind links too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = sorted({path.parts[len(ROOT.parts)] for path in ROOT.glob("[!.]*/**/*.py")})
PLANTED = '"""A wrong type, a badly formatted line and an unused import."""\n\n'
PLANTED += "from __future__ import annotations\n\nimport json\n\nnumber: int = 'text'\n"


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """The configuration of the checks, and in each folder one file with three faults."""
    root = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / "pyproject.toml", root)
    for folder in FOLDERS:
        (root / folder).mkdir()
        (root / folder / "planted.py").write_text(PLANTED)
    for link in (ROOT / "causalclip").iterdir():
        if link.is_symlink():
            (root / "causalclip" / link.name).symlink_to(link.readlink())
    return root


def faults(planted: Path, *command: str) -> str:
    line = [sys.executable, "-m", *command]
    done = subprocess.run(line, cwd=planted, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return done.stdout


def test_the_type_check_finds_a_wrong_type_in_each_folder(planted):
    report = json.loads(faults(planted, "basedpyright", "--outputjson"))
    found = [Path(fault["file"]).relative_to(planted) for fault in report["generalDiagnostics"]]
    assert sorted(path.parts[0] for path in found) == FOLDERS  # once each


@pytest.mark.parametrize(
    "command",
    [("check", "--select=F401", "--output-format=concise"), ("format", "--check")],
    ids=" ".join,
)
def test_ruff_finds_an_unused_import_and_a_badly_formatted_line_in_each_folder(planted, command):
    found = faults(planted, "ruff", *command, "--no-cache")
    assert [folder for folder in FOLDERS if f"{folder}/planted.py" not in found] == []
