"""What an engine works through: runs whose training is there first, each outcome once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from causalclip.report.results import RESULTS_FILE
from causalclip.runs.lock import holder_of
from causalclip.runs.plan import Run
from causalclip.runs.state import State, finished, state_of
from causalclip.runs.stop import Stop


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Run
    state: str
    """finished, skipped, failed, or waiting for a training that failed; not over are again, and
    busy: another process has the folder."""
    reason: str = ""
    """One sentence for a failure."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether its result is there."""
        return self.state in ("finished", "skipped")

    @property
    def final(self) -> bool:
        """Whether nothing more will be heard of the run."""
        return self.state not in ("again", "busy")


ATTEMPTS = 2
"""A run whose process died is tried once more; a failure with a reason is not."""


class Schedule:
    """The runs that are left, in their order; a test comes after its training."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.waiting = {run.folder: run for run in runs}
        self.at_work: dict[Path, Run] = {}
        self.attempts: dict[Path, int] = {}
        self.elsewhere: set[Path] = set()
        self.data_apart = False
        """Whether machines draw data of their own, so that nobody waits for who draws."""

    def next(self) -> Run | Outcome | None:
        """A run to begin, or one that needs no process; None while all wait for others."""
        for run in self.waiting.values():
            if self._must_wait(run):
                continue
            holder = holder_of(run.folder)
            if not holder:
                del self.waiting[run.folder]
                return self._begin(run)
            if run.folder not in self.elsewhere:  # said once
                self.elsewhere.add(run.folder)
                return Outcome(run, "busy", f"is at work: {holder}")
        return None

    def _must_wait(self, run: Run) -> bool:
        before = run.trained in self.at_work or run.trained in self.waiting
        return before or self._is_being_drawn(run.draws)

    def _is_being_drawn(self, data: Path | None) -> bool:
        """Whether a run at work draws this data set: twice at once would be twice the work."""
        if data is None or self.data_apart or data.is_dir():
            return False
        return any(run.draws == data for run in self.at_work.values())

    def _begin(self, run: Run) -> Run | Outcome:
        try:
            state = state_of(run)
        except ValueError as error:
            return Outcome(run, "failed", str(error))
        if finished(state):
            return Outcome(run, "skipped", state.value)
        if state is State.OTHER:
            return Outcome(run, "failed", state.value)
        if run.trained is not None and not (run.trained / RESULTS_FILE).is_file():
            return Outcome(run, "waiting", f"nothing trained in {run.trained}")
        self.at_work[run.folder] = run
        self.attempts[run.folder] = self.attempts.get(run.folder, 0) + 1
        return run

    def ended(self, run: Run, reason: str, seconds: float) -> Outcome:
        """A run has ended by itself; an empty reason is success."""
        del self.at_work[run.folder]
        return Outcome(run, "failed" if reason else "finished", reason, seconds)

    def died(self, run: Run, reason: str) -> Outcome:
        """Its process died: once more, at the front, or that was it."""
        del self.at_work[run.folder]
        if self.attempts[run.folder] < ATTEMPTS:
            self.waiting = {run.folder: run, **self.waiting}
            return Outcome(run, "again", reason)
        return Outcome(run, "failed", reason)


class Crew(Protocol):
    """Whoever does the runs of a schedule, several at a time."""

    def has_room(self) -> bool:
        """Whether it can take another run."""
        ...

    def begin(self, run: Run) -> None:
        """Begin a run."""
        ...

    def is_idle(self) -> bool:
        """Whether no run is at work."""
        ...

    def heard(self, schedule: Schedule) -> Iterator[Outcome]:
        """What has ended; waits a little for it."""
        ...


def work(schedule: Schedule, crew: Crew, stop: Stop) -> Iterator[Outcome]:
    """Do what is scheduled; outcomes as they come. After a stop, what is at work ends."""
    while True:
        if not stop.asked:
            yield from _fill(crew, schedule)
        if not crew.is_idle():
            yield from crew.heard(schedule)
        elif stop.asked or not schedule.waiting:
            return
        else:
            time.sleep(0.5)  # what is left is at work elsewhere


def _fill(crew: Crew, schedule: Schedule) -> Iterator[Outcome]:
    """Give every free place a run."""
    while crew.has_room():
        chosen = schedule.next()
        if chosen is None:
            return
        if isinstance(chosen, Outcome):
            yield chosen
        else:
            crew.begin(chosen)
