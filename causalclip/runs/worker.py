"""The task that a process performs for a run; it leaves nothing behind for the next run."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from causalclip.files.text import end_log
from causalclip.runs.plan import Run

Show = Literal["all", "runs"]
"""Output of a run to print: `all` of it, or only how each of the `runs` ended."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Run
    state: str
    """finished, skipped, failed, or waiting (its training has no result); not final: again (its
    process died) or busy (another process has locked the folder)."""
    reason: str = ""
    """One sentence for a failure."""
    seconds: float = 0.0

    @property
    def final(self) -> bool:
        """Whether this outcome is the run's last."""
        return self.state not in ("again", "busy")


def perform_run(run: Run, folder: str, show: Show = "runs") -> Outcome:
    """Train or evaluate as `causalclip train` does when it is called in `folder`.

    A signal to stop first saves the training, then ends this process too.
    """
    import torch  # here, so that the driver need not import it

    from causalclip.engine.stopping import Stopped
    from causalclip.records.results import reset_peak_memory

    start = time.monotonic()
    reset_peak_memory()
    try:
        with as_alone(run.arguments), streams(show):
            outcome = _performed(run, folder)
    except Stopped as stop:
        signal.raise_signal(stop.number)
        raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return replace(outcome, seconds=time.monotonic() - start)


def _performed(run: Run, folder: str) -> Outcome:
    from causalclip.engine.stopping import stoppable
    from causalclip.errors import INPUT_ERRORS
    from causalclip.files.lock import Busy
    from causalclip.records.identity import has_result
    from causalclip.runs import flags, train
    from causalclip.runs.state import State, state_of

    args = flags.parser().parse_args(run.arguments)
    try:
        os.chdir(folder)
        # Another command may have finished it while this process started.
        if has_result(run.folder) and state_of(run) is State.FINISHED:
            return Outcome(run, "skipped")
        with stoppable():
            train.train_from_args(args)
    except Busy as error:
        return Outcome(run, "busy", str(error))
    except INPUT_ERRORS as error:
        end_log(error)
        return Outcome(run, "failed", train.explained(error, Path(args.output_dir)))
    except Exception as error:  # noqa: BLE001 (one run's mistake must not end the others)
        end_log(error)
        reason = f"{type(error).__name__}: {error} (the traceback is in the log)"
        return Outcome(run, "failed", reason)
    return Outcome(run, "finished")


@contextlib.contextmanager
def as_alone(arguments: Sequence[str]) -> Iterator[None]:
    """Set sys.argv for one run; restore it, the environment and the current folder afterwards."""
    argv, variables, folder = sys.argv, dict(os.environ), os.getcwd()
    sys.argv = ["causalclip train", *arguments]
    try:
        yield
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(variables)
        os.chdir(folder)


@contextlib.contextmanager
def streams(show: Show) -> Iterator[None]:
    """Give a run its own stdout and stderr: Dassl's logger closes the stdout that it finds."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = os.fdopen(os.dup(1), "w", buffering=1) if show == "all" else nowhere
        errors = sys.stderr if show == "all" else nowhere
        with contextlib.redirect_stdout(console), contextlib.redirect_stderr(errors):
            try:
                yield
            finally:
                end_log(sys.exc_info()[1])
        console.close()
