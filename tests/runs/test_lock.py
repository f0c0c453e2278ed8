"""One process at a folder: who has it is said, and a dead holder is noticed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from causalclip.runs.lock import Busy, holding

HOLD = """
import sys
from pathlib import Path
from causalclip.runs.lock import holding
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


def test_the_other_is_told_who_has_it(holder, tmp_path):
    said = rf"is at work: process {holder.pid} on {socket.gethostname()} since 20"
    with pytest.raises(Busy, match=said), holding(tmp_path):
        pass


def test_a_folder_is_free_after_its_holder_has_left_it_in_peace(holder, tmp_path):
    holder.stdin.close()
    holder.wait()
    with holding(tmp_path) as died:
        assert not died


def test_a_holder_that_was_killed_is_noticed(holder, tmp_path):
    holder.kill()
    holder.wait()
    with holding(tmp_path) as died:
        assert died


def test_a_loading_process_does_not_inherit_the_lock(tmp_path):
    code = HOLD.replace("sys.stdin.read()", "import os; os.fork() or sys.stdin.read()")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes)
    assert process.stdout.readline() == "held\n"
    os.kill(process.pid, 9)  # its child lives on, and reads on
    process.wait()
    with holding(tmp_path):
        pass
    process.stdin.close()
    process.stdout.close()
