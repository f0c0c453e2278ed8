"""Ratios of two ways to do one thing, timed alternately in one run so that load hits both."""

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
    """Time both functions `repeats` times each, in turn, after one call that is not counted.

    With `time.process_time` as the clock, what else runs on the machine does not count.
    """
    seconds(plain, clock)
    seconds(fast, clock)
    pairs = [(seconds(plain, clock), seconds(fast, clock)) for _ in range(repeats)]
    return Ratio(median(pair[0] for pair in pairs), median(pair[1] for pair in pairs))


def seconds(
    function: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Time one call, to the end of what it started on an accelerator."""
    _wait()
    start = clock()
    function()
    _wait()
    return clock() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
