"""One process at a folder: who has it is told, and a holder that died is noticed."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys

import pytest

from causalclip.files import lock
from causalclip.files.lock import Busy, holder_of, holding

HOLD = """
import sys
from pathlib import Path
from causalclip.files.lock import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path until its stdin ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_has_the_folder_and_the_first_keeps_it(holder, tmp_path):
    said = rf"is at work: process {holder.pid} on {socket.gethostname()} since 20"
    for _ in range(2):
        with pytest.raises(Busy, match=said), holding(tmp_path):
            pass
    assert f"process {holder.pid} on " in holder_of(tmp_path)


def test_a_folder_is_free_after_its_holder_has_ended_well(holder, tmp_path):
    holder.stdin.close()
    holder.wait()
    with holding(tmp_path) as died:
        assert not died


def test_a_holder_that_was_killed_is_noticed(holder, tmp_path):
    holder.kill()
    holder.wait()
    with holding(tmp_path) as died:
        assert died
    with holding(tmp_path) as died:
        assert not died


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_by_its_folder(code, tmp_path, monkeypatch):
    def acquire(self):
        raise OSError(code, "No locks available")

    monkeypatch.setattr(lock.FileLock, "acquire", acquire)
    with pytest.warns(UserWarning, match=f"{tmp_path} has no locks"), holding(tmp_path) as died:
        assert not died


def test_another_error_of_a_lock_is_raised(tmp_path, monkeypatch):
    def acquire(self):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(lock.FileLock, "acquire", acquire)
    with pytest.raises(OSError, match="Input/output"), holding(tmp_path):
        pass
