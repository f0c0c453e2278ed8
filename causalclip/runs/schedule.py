"""Schedule runs: each test after its training, and a run again if its process died."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from causalclip.records.results import RESULTS_FILE
from causalclip.runs.executor import ATTEMPTS, Executor
from causalclip.runs.plan import Run
from causalclip.runs.state import State, state_of
from causalclip.runs.worker import Outcome, Show, perform_run

BUSY_SECONDS = 2.0
"""Seconds until a run that another process was performing is tried again."""
LOOK_SECONDS = 0.5


class Stop:
    """A request to start no more runs: `asked` is the number of the signal, 0 without one."""

    asked: int = 0


class Schedule:
    """Runs, and the executor that performs them."""

    def __init__(self, runs: Sequence[Run], executor: Executor, show: Show = "runs") -> None:
        self.executor, self.show = executor, show
        self.waiting = {run.folder: run for run in runs}
        self.at_work: dict[Future[Outcome], Run] = {}
        self.deaths: Counter[Path] = Counter()
        self.busy_until: dict[Path, float] = {}

    def outcomes(
        self, stop: Stop, each_look: Callable[[], object] = lambda: None
    ) -> Iterator[Outcome]:
        """Perform the runs; yield outcomes as they come. After a stop, finish the active runs only.

        `each_look` is called at least every `LOOK_SECONDS` while runs are active.
        """
        while self.at_work or (self.waiting and not stop.asked):
            if not stop.asked:
                yield from self._fill()
            if self.at_work:
                each_look()
                done, _ = wait(self.at_work, LOOK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    if outcome := self._ended(self.at_work.pop(future), future):
                        yield outcome
            elif self.waiting and not stop.asked:
                time.sleep(LOOK_SECONDS)  # other processes perform the remaining runs

    def _fill(self) -> Iterator[Outcome]:
        """Start runs in the free processes; yield the outcomes of runs that need no process."""
        while (run := self._next()) and len(self.at_work) < self.executor.places():
            del self.waiting[run.folder]
            if outcome := self._without_process(run):
                yield outcome
            else:
                task = (perform_run, run, os.getcwd(), self.show)
                self.at_work[self.executor.submit(*task)] = run

    def _next(self) -> Run | None:
        """Return the first run that can start now; None if there is none."""
        unfinished = {*self.waiting, *(run.folder for run in self.at_work.values())}
        now = time.monotonic()
        ready = (
            run
            for run in self.waiting.values()
            if run.trained not in unfinished and self.busy_until.get(run.folder, 0) <= now
        )
        return next(ready, None)

    def _without_process(self, run: Run) -> Outcome | None:
        try:
            state = state_of(run)
        except (ValueError, OSError) as error:
            return Outcome(run, "failed", str(error))
        if state is State.FINISHED:
            return Outcome(run, "skipped")
        if isinstance(state, str):
            return Outcome(run, "failed", state)
        if run.trained is not None and not (run.trained / RESULTS_FILE).is_file():
            return Outcome(run, "waiting", "its training has no result")
        return None

    def _ended(self, run: Run, future: Future[Outcome]) -> Outcome | None:
        try:
            outcome = future.result()
        except self.executor.died as error:
            return self._died(run, error)
        if outcome.state == "busy":
            first = run.folder not in self.busy_until
            self.busy_until[run.folder] = time.monotonic() + BUSY_SECONDS
            self.waiting = {run.folder: run, **self.waiting}
            return outcome if first else None
        if outcome.state == "finished" and not (run.folder / RESULTS_FILE).is_file():
            reason = "its results.json is not here: every machine must see the output folder"
            return replace(outcome, state="failed", reason=reason)
        return outcome

    def _died(self, run: Run, error: Any) -> Outcome:
        self.deaths[run.folder] += 1
        known = isinstance(error, BrokenExecutor)  # its message adds nothing
        reason = f"its process died{'' if known else ': ' + str(error).strip().splitlines()[0]}"
        if self.deaths[run.folder] == ATTEMPTS:
            return Outcome(run, "failed", f"{reason} ({ATTEMPTS} times)")
        self.waiting = {run.folder: run, **self.waiting}
        return Outcome(run, "again", reason)
