"""Files and folders that nobody finishes any more."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from causalclip.files.atomic import replacing
from causalclip.files.unfinished import remove_abandoned, unfinished

WRITER = """
import os, sys
from causalclip.files.atomic import replacing
with replacing(sys.argv[1]) as part:
    part.write_text("half")
    os._exit(1)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path, capsys):
    path = tmp_path / "results[1].json"
    subprocess.run([sys.executable, "-c", WRITER, path], check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    with replacing(path) as part:
        part.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["results[1].json"]
    assert f"Removing {left}, left by a process that died" in capsys.readouterr().out


def test_what_is_being_written_stays(tmp_path):
    mine, others = unfinished(tmp_path / "a"), tmp_path / ".a.elsewhere-1-aa.part"
    mine.touch()
    others.touch()
    assert remove_abandoned(tmp_path) == []
    os.utime(others, (time.time() - 90_000,) * 2)
    assert remove_abandoned(tmp_path, "b") == []
    assert remove_abandoned(tmp_path) == [others] and mine.exists()


@pytest.mark.parametrize("name", ["a", ".hidden", "with-dash.b", "x" * 150])
def test_any_name_can_be_written(name, tmp_path):
    with replacing(tmp_path / name) as part:
        part.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == [name]
