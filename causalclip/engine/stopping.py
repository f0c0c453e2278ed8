"""Stop a training by a signal: finish the current step and save, so that the run can be resumed.

A batch scheduler sends SIGTERM some time before it kills, a terminal SIGINT (Ctrl-C) or SIGHUP. A
second signal, at least a second later, ends the process at once; so does the first one outside of
training.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TOGETHER = 1.0
"""Seconds within which two signals count as one: a scheduler and a driver may both send one."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OUTLIVE_SECONDS = 60
"""Seconds that a loading process lives on after a signal, unless its training ends it before."""


class Stopped(KeyboardInterrupt):
    """The process was told to stop, by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    """State of this process that the signal handlers read and write."""

    training = False
    asked: int | None = None
    since = 0.0


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn signals into `Stopped`, except signals that are ignored or handled elsewhere."""
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    default = {signal.SIG_DFL, signal.default_int_handler}
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [number for number, handler in before.items() if handler in default]
    _State.training, _State.asked = False, None
    for number in ours:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _handle(number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _State.training or (_State.asked is not None and now - _State.since > TOGETHER):
        raise Stopped(number)
    if _State.asked is not None:
        return
    _State.asked, _State.since = number, now
    print(f"{signal.Signals(number).name}: stopping after this step", flush=True)


def training_begins() -> None:
    """From now on, let the first signal wait for the end of a step."""
    _State.training = True


def training_ends() -> None:
    """From now on, let a signal raise at once."""
    _State.training = False


def asked() -> int | None:
    """Return the signal that told the training to stop; None without one."""
    return _State.asked


def stop(number: int) -> None:
    """End the training, whose state is saved.

    Raises:
        Stopped: always.
    """
    _State.training, _State.asked = False, None
    raise Stopped(number)


def outlive_signals(_worker: int = 0) -> None:
    """Let a loading process live until its training has saved; for `worker_init_fn`.

    A terminal or a scheduler signals all processes of a run at once. A worker that ended then would
    end the training before its checkpoint is written.
    """
    for number in SIGNALS:
        signal.signal(number, _outlive)


def _outlive(number: int, _frame: FrameType | None) -> None:
    if number == signal.SIGTERM and _State.asked is not None:  # the second: from the training
        os._exit(0)
    _State.asked = number
    signal.alarm(OUTLIVE_SECONDS)  # ends the process by its default action
