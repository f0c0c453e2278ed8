"""Work in a child process: its answers and refusals, and its end at each limit."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from causalclip.files.confined import Limits, confined

LITTLE = Limits(seconds=60, gigabytes=0.5)
BRIEF = Limits(seconds=0.5, gigabytes=0.5)  # on a busy machine a child may not even have begun


def test_the_answer_comes_back_whole():
    answer = os.urandom(3_000_000)  # more than a pipe holds
    assert confined(lambda: answer, Limits()) == answer
    assert confined(lambda: b"", Limits()) == b""


def refuse():
    raise OSError("a.pt is no file of mine")


def test_what_the_work_refuses_is_said():
    with pytest.raises(ValueError, match=r"^a.pt is no file of mine$"):
        confined(refuse, LITTLE)


def spin():
    while True:
        pass


@pytest.mark.parametrize("work", [spin, lambda: time.sleep(100)])
def test_what_never_ends_is_stopped(work):
    begun = time.monotonic()
    with pytest.raises(ValueError, match="took longer than 0.5 seconds and was stopped"):
        confined(work, BRIEF)
    assert time.monotonic() - begun < 30


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="bounded on Linux alone")
def test_what_eats_memory_is_stopped():
    with pytest.raises(ValueError, match=r"asked for more than 0.5 GB of memory and was stopped"):
        confined(lambda: bytes(2 << 30), LITTLE)


def test_a_child_that_dies_is_said():
    with pytest.raises(ValueError, match="ended without an answer, by SIGTERM"):
        confined(lambda: signal.raise_signal(signal.SIGTERM), LITTLE)
    with pytest.raises(ValueError, match="ended without an answer, with status 3"):
        confined(lambda: os._exit(3), LITTLE)


def test_it_can_write_no_file(tmp_path):
    def write():
        (tmp_path / "file").write_bytes(b"text")

    with pytest.raises(ValueError, match="File too large"):
        confined(write, LITTLE)


def test_it_has_no_network():
    def connect():
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=1).close()
        return os.readlink("/proc/self/ns/net").encode()

    try:
        found = confined(connect, LITTLE).decode()
    except ValueError as error:  # a network of its own has not even 127.0.0.1 up
        assert "unreachable" in str(error)
        return
    assert found == os.readlink("/proc/self/ns/net")
    pytest.skip("this kernel lets nobody close the network")
