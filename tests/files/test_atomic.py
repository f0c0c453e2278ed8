"""causalclip/files/atomic.py: whole files, with the mode that the umask asks for."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from causalclip.files.atomic import remove_abandoned, replacing, unfinished


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "numbers"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    message = f"No space left to write {path}; the previous"
    with pytest.raises(OSError, match=message), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("hard_links", [True, False])
def test_the_last_writer_wins_or_the_first_where_asked(tmp_path, monkeypatch, hard_links):
    if not hard_links:

        def refused(source, target):
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "new" / "numbers"  # in a folder that is made
    for text, keep_existing, kept in (
        *(("one", True, "one"), ("two", False, "two"), ("three", True, "two")),
    ):
        with replacing(path, keep_existing=keep_existing) as part:
            part.write_text(text)
        assert path.read_text() == kept
    assert list(path.parent.iterdir()) == [path]


def test_the_mode_is_the_umasks_even_where_a_writer_puts_a_private_file(tmp_path, umask):
    path = tmp_path / "w.safetensors"
    with replacing(path) as part:
        save_file({"a": torch.zeros(2)}, part)
        os.chmod(part, 0o600)
    assert mode_of(path) == 0o666 & ~umask


@pytest.mark.parametrize("name", ["a", ".hidden", "with-dash.b", "x" * 150, "results[1].json"])
def test_what_a_killed_writer_left_is_removed_by_the_next_one(name, tmp_path, capsys):
    killed = "import os, sys; from causalclip.files.atomic import replacing\n"
    killed += "with replacing(sys.argv[1]) as part: part.write_text('half'); os._exit(1)"
    subprocess.run([sys.executable, "-c", killed, tmp_path / name], check=False, timeout=600)
    (left,) = tmp_path.iterdir()
    with replacing(tmp_path / name) as part:
        part.write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert f"Removing {left}, left by a process that died" in capsys.readouterr().out


def test_what_another_process_of_the_same_number_is_writing_stays(tmp_path, monkeypatch):
    # two containers that share a folder: one host name, and both processes are number 1
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with unfinished(tmp_path / "a") as one, unfinished(tmp_path / "a") as two:
        two.mkdir()
        assert one != two
        assert remove_abandoned(tmp_path) == []
        assert two.is_dir()
    half_removed = tmp_path / ".a.0123.part"
    half_removed.mkdir()
    assert remove_abandoned(tmp_path, "b") == []
    assert remove_abandoned(tmp_path) == [half_removed]
    assert list(tmp_path.iterdir()) == []


def test_files_are_written_where_the_system_has_no_fcntl(tmp_path):
    code = (
        "import sys; sys.modules.update(fcntl=None, resource=None)\n"  # as on Windows
        "import causalclip.records.results\n"
        "from causalclip.files.atomic import remove_abandoned, replacing\n"
        "with replacing('a') as part:\n"
        "    part.write_text('whole')\n"
        "    assert not remove_abandoned(part.parents[1])\n"  # which is at work
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "whole")]
