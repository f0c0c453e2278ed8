"""Ratio of the times of two functions, called alternately so that load affects both alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Ratio:
    """Median seconds of both ways."""

    plain: float
    fast: float

    def __str__(self) -> str:
        plain, fast = 1000 * self.plain, 1000 * self.fast
        return f"plain {plain:.1f} ms, ours {fast:.1f} ms: {self.plain / self.fast:.1f}x"


def ratio(
    plain: Callable[[], object],
    fast: Callable[[], object],
    repeats: int = 7,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Time both functions alternately, `repeats` times each, after one warm-up call.

    With `time.process_time` as the clock, other processes on the machine hardly matter.
    """
    seconds(plain, clock)
    seconds(fast, clock)
    pairs = [(seconds(plain, clock), seconds(fast, clock)) for _ in range(repeats)]
    return Ratio(median(pair[0] for pair in pairs), median(pair[1] for pair in pairs))


def seconds(
    function: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds of one call, including the work that it starts on a GPU."""
    _wait()
    start = clock()
    function()
    _wait()
    return clock() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
