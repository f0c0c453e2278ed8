"""What an engine works through: runs whose training is there first, each outcome once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from causalclip.runs.plan import Run
from causalclip.runs.state import State, finished, state_of


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Run
    state: str
    """finished, skipped, failed, waiting for a training that failed, or again: it is not over."""
    reason: str = ""
    """One sentence for a failure."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether its result is there."""
        return self.state in ("finished", "skipped")


ATTEMPTS = 2
"""A run whose process died is tried once more; a failure with a reason is not."""


class Schedule:
    """The runs that are left, in their order; a test comes after its training."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.waiting = {run.folder: run for run in runs}
        self.at_work: dict[Path, Run] = {}
        self.attempts: dict[Path, int] = {}

    def next(self) -> Run | Outcome | None:
        """A run to begin, or one that needs no process; None while all wait for others."""
        ready = (run for run in self.waiting.values() if not self._must_wait(run))
        run = next(ready, None)
        if run is None:
            return None
        del self.waiting[run.folder]
        return self._begin(run)

    def _must_wait(self, run: Run) -> bool:
        before = run.trained in self.at_work or run.trained in self.waiting
        return before or self._is_being_drawn(run.draws)

    def _is_being_drawn(self, data: Path | None) -> bool:
        """Whether a run at work draws this data set: twice at once would be twice the work."""
        if data is None or data.is_dir():
            return False
        return any(run.draws == data for run in self.at_work.values())

    def _begin(self, run: Run) -> Run | Outcome:
        state = state_of(run)
        if finished(state):
            return Outcome(run, "skipped", state.value)
        if state is State.OTHER:
            return Outcome(run, "failed", state.value)
        if run.trained is not None and not (run.trained / "results.json").is_file():
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
