"""Work on a stranger's file in a child process: bounded in time and memory, and it writes nothing.

What the child hands back is bytes, never a pickle, so that a file which has taken the child over
has not taken over the parent.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

GIGABYTE = 1 << 30
ANSWER, REFUSAL, MEMORY = b"answer", b"refusal", b"memory"
OUT_OF_MEMORY = ("allocate memory", "bad allocation", "bad_alloc")  # as torch says it
NO_NETWORK = 0x40000000 | 0x10000000  # CLONE_NEWNET, and CLONE_NEWUSER, which allows it to anybody


@dataclass(frozen=True)
class Limits:
    """What a piece of work may take before it is ended."""

    seconds: float = 600.0
    gigabytes: float = 16.0
    """Of memory, on top of what this process has."""


def confined(work: Callable[[], bytes], limits: Limits) -> bytes:
    """What `work` returns, done in a child process that may write no file and use no network.

    Memory is bounded on Linux alone, and the network closed where the kernel lets anybody do it.

    Raises:
        ValueError: what a ValueError, OSError or RuntimeError of the work says; or the limit that
            it reached, or how it ended.
    """
    context = multiprocessing.get_context("fork")  # it has all imported, and what is imported here
    answers, answer_to = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, limits, answer_to), daemon=True)
    child.start()
    answer_to.close()
    late = threading.Event()
    clock = threading.Timer(limits.seconds, lambda: (late.set(), child.kill()))
    clock.start()
    try:
        kind, said = answers.recv_bytes(), answers.recv_bytes()
    except EOFError:  # it has ended, or was
        kind, said = b"", b""
    finally:
        clock.cancel()
        child.kill()
        child.join()
    if kind == ANSWER:
        return said
    raise ValueError(said.decode() or _ending(kind, late.is_set(), child.exitcode, limits))


def _ending(kind: bytes, late: bool, status: int | None, limits: Limits) -> str:
    if late or status == -signal.SIGXCPU:
        return f"it took longer than {limits.seconds:g} seconds and was stopped"
    if kind == MEMORY:
        return f"it asked for more than {limits.gigabytes:g} GB of memory and was stopped"
    how = f"by {signal.Signals(-status).name}" if status and status < 0 else f"with status {status}"
    return f"it ended without an answer, {how} (it may take {limits.gigabytes:g} GB of memory)"


# In the child


def _child(work: Callable[[], bytes], limits: Limits, answer_to: Connection) -> NoReturn:
    _restrict(limits)
    try:
        kind, said = ANSWER, work()
    except MemoryError:
        kind, said = MEMORY, b""
    except (ValueError, OSError, RuntimeError) as error:
        full = any(words in str(error) for words in OUT_OF_MEMORY)
        kind, said = (MEMORY, b"") if full else (REFUSAL, str(error).encode())
    answer_to.send_bytes(kind)
    answer_to.send_bytes(said)
    os._exit(0)  # nothing of the parent's is tidied up here


def _restrict(limits: Limits) -> None:
    import torch

    torch.set_num_threads(1)  # the threads of the parent are not here
    seconds = int(limits.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _bound_memory(int(limits.gigabytes * GIGABYTE))
    libc = ctypes.CDLL(None)
    if hasattr(libc, "unshare"):  # Linux
        libc.unshare(NO_NETWORK)


def _bound_memory(more: int) -> None:
    sizes = Path("/proc/self/statm")
    if sizes.exists():
        most = int(sizes.read_text().split()[0]) * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
