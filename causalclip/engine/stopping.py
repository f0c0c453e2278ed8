"""Being told to stop: a training ends its epoch and saves it, anything else ends at once.

A batch scheduler sends SIGTERM some time before it kills, a closed terminal SIGHUP. Within an epoch
nothing can be saved that would resume to the same bits, so it is finished first; a second signal,
or Ctrl-C (SIGINT), ends at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENT = (signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):  # loading processes that inherit the handler end without a word
    """The process was told to stop, by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    """Of this process: signals know no other place."""

    owner = 0
    training = False
    asked: int | None = None


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn signals into `Stopped`; those that are ignored or handled elsewhere stay as they are."""
    if threading.current_thread() is not threading.main_thread():  # which hears no signals
        yield
        return
    defaults = {signal.SIGINT: signal.default_int_handler}
    defaults |= dict.fromkeys(PATIENT, signal.SIG_DFL)
    before = {number: signal.getsignal(number) for number in defaults}
    if before[signal.SIGINT] is not signal.default_int_handler:  # a part of something larger
        yield
        return
    _State.owner, _State.training, _State.asked = os.getpid(), False, None
    ours = [number for number, handler in before.items() if handler is defaults[number]]
    for number in ours:
        signal.signal(number, _heard)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _heard(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _State.owner:  # a loading process: its parent decides, and ends it by SIGTERM
        if number != signal.SIGINT:
            os._exit(128 + number)
        return
    if number in PATIENT and _State.training and _State.asked is None:
        _State.asked = number
        print(f"{signal.Signals(number).name}: stopping after this epoch", flush=True)
        return
    raise Stopped(number)


def epoch_begins() -> None:
    """From here on the first SIGTERM waits for the end of the epoch."""
    _State.training = True


def epoch_ends() -> None:
    """The epoch is over and saved where it had to be.

    Raises:
        Stopped: it was asked for meanwhile.
    """
    _State.training = False  # first: from here on a signal raises
    number, _State.asked = _State.asked, None
    if number is not None:
        raise Stopped(number)


def asked() -> int | None:
    """The signal that stops the process after this epoch, if one came."""
    return _State.asked


def ask(number: int | None) -> None:
    """Stop after this epoch by a signal that one of the run's processes has heard; None by none."""
    if number is not None:
        _State.asked = number
