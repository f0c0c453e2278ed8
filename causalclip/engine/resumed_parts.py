"""Optimizer and schedule of a resumed run: those of the checkpoint, or the run is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANGES = {"params", "lr", "verbose", "cons_lr", "min_lr", "kind", "start_lr"}
"""What differs in a checkpoint of the same settings: by the schedule, by torch's version, by the
toolkit (two are of Dassl's warm-ups, the last two of minidassl's)."""


def state_of(part: Any) -> dict[str, Any] | None:
    """The state dict of an optimizer or schedule; None for a model without one."""
    return None if part is None else part.state_dict()


def load_part(part: Any, state: dict[str, Any], where: str) -> None:
    """Load the state of an optimizer or schedule; `where` it stands is for the message.

    torch takes over whatever it is given, another optimizer's numbers too.

    Raises:
        ValueError: it is another optimizer's or schedule's, of other settings, or damaged.
    """
    try:
        found = _differences(state, part.state_dict())
        if not found:
            part.load_state_dict(state)
            found = _missing(part)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        found = [str(error)]
    if found:
        raise ValueError(
            f"{where} is not of this run's {type(part).__name__}: {'; '.join(found)}; resume with "
            "its settings, or choose another --output-dir"
        )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Settings of a stored state that this run's has not, or has with another value."""
    if "param_groups" not in here:  # a schedule: how far it is, and the epochs, may differ
        return _unknown(there, here)
    found: list[str] = []
    for old, new in zip(there["param_groups"], here["param_groups"], strict=True):
        found += _unknown(old, new)
        found += [
            f"{key} is {old[key]!r} there, {new[key]!r} here"
            for key in sorted(old.keys() & new.keys() - CHANGES)
            if old[key] != new[key]
        ]
    return found


def _unknown(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    names = {key for key in there if not str(key).startswith("_")} - here.keys() - CHANGES
    found = [f"it has {', '.join(sorted(map(str, names)))}"] if names else []
    for key in there.keys() & here.keys():  # a warm-up holds the schedule that follows it
        if isinstance(there[key], Mapping) and isinstance(here[key], Mapping):
            found += _unknown(there[key], here[key])
    return found


def _missing(part: Any) -> list[str]:
    """Settings that an optimizer needs, and that neither the state nor torch has filled in."""
    groups, needed = getattr(part, "param_groups", ()), getattr(part, "defaults", {})
    lacking = {key for group in groups for key in needed if key not in group}
    return [f"it lacks {', '.join(sorted(lacking))}"] if lacking else []
