"""The state of a run, by what its folder contains."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from causalclip.records.identity import (
    Identity,
    has_result,
    model_digest,
    read_run,
)
from causalclip.runs.flags import parser
from causalclip.runs.plan import Run


class State(Enum):
    """State of a run."""

    TO_RUN = "to run"
    FINISHED = "finished"
    STALE = "to run again: its training has changed"


def state_of(run: Run) -> State | str:
    """Return the state of a run by its run.json and results.json, or its `refusal`.

    Raises:
        ValueError: a run.json that is damaged or of another schema, or wrong data.
        OSError: data that cannot be read.
    """
    recorded = read_run(run.folder)
    if reason := refusal(run):
        return reason
    if not has_result(run.folder) or recorded is None:
        return State.TO_RUN
    if run.trained is not None and recorded.model != model_digest(run.trained):
        return State.STALE
    return State.FINISHED


def refusal(run: Run) -> str:
    """Return why a run's folder belongs to a run of other settings or data; "" if it does not.

    Raises:
        ValueError, OSError: as `state_of`.
    """
    recorded = read_run(run.folder)
    if recorded is None:
        return ""
    from causalclip.runs.configuration import planned_settings  # imports torch
    from causalclip.runs.run_folder import AnotherRun, check_folder, check_inputs

    epoch = parser().parse_args(run.arguments).load_epoch
    identity = Identity(planned_settings(run.arguments), epoch)
    try:
        check_folder(run.folder, identity)
        if recorded.data:
            check_inputs(run.folder, Identity(identity.settings, epoch, data=data_of(run)))
    except AnotherRun as error:
        return str(error)
    return ""


def data_of(run: Run) -> Mapping[str, str] | None:
    """Return the current digests of a run's data; None if DATASET.ROOT does not exist.

    A bundled data set is built if DATASET.ROOT exists.
    """
    from causalclip.runs.configuration import cfg_of_words

    cfg = cfg_of_words(run.arguments)
    if not Path(cfg.DATASET.ROOT).is_dir():
        return None
    key = f"{cfg.SEED} {cfg.DATASET}"
    if key not in _digests:
        from causalclip.engine.data import build_seeded_dataset, data_digests

        _digests[key] = data_digests(build_seeded_dataset(cfg), cfg.DATASET.ROOT)
    return _digests[key]


_digests: dict[str, Mapping[str, str]] = {}
"""Digests of the data sets that this process has built, by their settings."""
