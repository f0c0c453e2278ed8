"""A test beside the training whose model it loads: settings in which the two differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causalclip.runs.identity import Difference, Recorded, described, read_run

REFUSED = (
    "INPUT.INTERPOLATION",
    "INPUT.PIXEL_MEAN",
    "INPUT.PIXEL_STD",
    "INPUT.RESIZE_MODE",
    "INPUT.SIZE",
    "TRAINER.CDC.EVIDENCE",
    "TRAINER.CDC.EVIDENCE_OFFSET",
)
"""With another of these a learned model is read as something that was never trained."""

TRANSFORMS = "INPUT.TRANSFORMS"
NORMALISATIONS = {"normalize", "instance_norm"}
"""Of INPUT.TRANSFORMS, what test images go through as well; the others change training images."""

SAID = ("SEED", "TRAINER.")
"""Beginnings of what may differ on purpose, as another fusion of the same templates."""


def check_tested(folder: Path, mine: Recorded) -> str:
    """Compare a test with the training in `folder`; what differs and may, as a note for the log.

    A training from before `run.json` says nothing, and nothing is compared.

    Raises:
        ValueError: a setting differs that makes another method of it; names both values.
    """
    there = read_run(folder)
    found = _differences(there, mine) if there else []
    refused = [difference for difference in found if difference[0] in (*REFUSED, TRANSFORMS)]
    if refused:
        raise ValueError(
            f"{folder} was trained with other settings, and tested with these it is another "
            f"method: {described(refused)}"
        )
    return f"Note: the training in {folder} had other settings: {described(found)}" if found else ""


def _differences(there: Recorded, mine: Recorded) -> list[Difference]:
    return [
        (key, there.configuration[key], value)
        for key, value in mine.configuration.items()
        if key.startswith((*SAID, *REFUSED, TRANSFORMS))
        and key in there.configuration
        and _counted(key, there.configuration[key]) != _counted(key, value)
    ]


def _counted(key: str, value: Any) -> Any:
    return NORMALISATIONS & set(value) if key == TRANSFORMS else value
