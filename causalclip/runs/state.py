"""What is in a run's folder: nothing, a part, its result, a stale result, or another run."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path
from statistics import mean

from causalclip.runs.flags import parser
from causalclip.runs.identity import (
    RUN_FILE,
    Difference,
    Settings,
    asked_settings,
    differences,
    has_result,
    model_digest,
    read_run,
    read_seconds,
)
from causalclip.runs.plan import Run


class State(Enum):
    """What is to be done with a run."""

    TO_RUN = "to run"
    FINISHED = "finished"
    OLD = "finished, from before runs had an identity"
    STALE = "to run again: its training has changed"
    OTHER = "another run is there"


def state_of(run: Run) -> State:
    """What a run's folder holds, by its `run.json` and results.json.

    Raises:
        ValueError: a `run.json` that is damaged or of a newer schema.
    """
    there = read_run(run.folder)
    if there is None:
        return State.OLD if has_result(run.folder) else State.TO_RUN
    if conflicts(run):
        return State.OTHER
    if not has_result(run.folder):
        return State.TO_RUN
    if run.trained is not None and there.identity.model != model_digest(run.trained):
        return State.STALE
    return State.FINISHED


def finished(state: State) -> bool:
    """Whether there is nothing left to do."""
    return state in (State.FINISHED, State.OLD)


def conflicts(run: Run) -> list[Difference]:
    """The settings in which the run in the folder is another one; empty for none."""
    there = read_run(run.folder)
    if there is None:
        return []
    args = parser().parse_args(run.arguments)
    found = differences(there, settings_of(run.arguments))
    if there.identity.epoch != args.load_epoch:
        found.append(("--load-epoch", there.identity.epoch, args.load_epoch))
    return found


@functools.cache
def settings_of(arguments: Sequence[str]) -> Settings:
    """The settings that `causalclip train` arguments ask for; the code's defaults are not known."""
    args = parser().parse_args(arguments)
    flags = {
        "SEED": args.seed,
        "TRAINER.NAME": args.trainer,
        "PROTOCOL": args.protocol,
        "PROTOCOL_PART": args.part,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
    }
    given = {key: value for key, value in flags.items() if value not in (None, "")}
    files = [Path(path) for path in (args.dataset_config_file, *args.config_file) if path]
    return {**asked_settings(files, ()), **given, **asked_settings((), args.opts)}


# Time


class Estimate:
    """How long runs take, from those that are finished below a folder."""

    def __init__(self, root: Path) -> None:
        self._seen: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for path in root.rglob(RUN_FILE):
            with suppress(ValueError):  # one that is damaged says nothing
                self._add(path.parent)

    def _add(self, folder: Path) -> None:
        seconds, there = read_seconds(folder), read_run(folder)
        if there is not None and seconds is not None:
            for kind in _kinds(there.configuration):
                self._seen[kind].append(seconds)

    def seconds(self, run: Run) -> float | None:
        """Of the same method, data and part; else of the method and part; None if never run."""
        for kind in _kinds(settings_of(run.arguments)):
            if kind in self._seen:
                return mean(self._seen[kind])
        return None

    def total(self, runs: Iterable[Run]) -> tuple[float, int]:
        """Seconds of all runs one after the other, and how many are not known."""
        each = [self.seconds(run) for run in runs]
        return sum(s for s in each if s is not None), each.count(None)


def _kinds(settings: Settings) -> list[tuple[str, ...]]:
    """What a run's time depends on, the closest first."""
    keys = ("TRAINER.NAME", "PROTOCOL_PART", "DATASET.NAME", "DATASET.NUM_SHOTS")
    kind = tuple(str(settings.get(key, "")) for key in keys)
    return [kind, kind[:2]]
