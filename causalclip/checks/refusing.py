"""That wrong settings are named before work, and a NaN stops a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from causalclip.checks.outcome import CheckFailed, NotApplicable, require
from causalclip.checks.subject import Subject
from causalclip.engine.base import SHARED, CLIPTrainer

COMMON = (("OPTIM.LR", math.nan), ("OPTIM.MAX_EPOCH", 0), ("TRAIN.PRINT_FREQ", 0))
PROBES = (-1, 0, -0.5, 10**15, 1e300, "nonsense", True, [])
"""Values of which most constraints refuse one."""
ABSURD = -(10**15)


def check_settings(subject: Subject) -> str:
    """An unknown key, a NaN and values out of range are named, before data or weights are read."""
    refuse(subject, f"{subject.node}.NO_SUCH_KEY", 1)
    wrong = [*COMMON, *wrong_settings(subject.kind, subject.node)]
    for key, value in wrong:
        refuse(subject, key, value)
    return f"{len(wrong) + 1} wrong settings named before work"


def wrong_settings(kind: type[CLIPTrainer], node: str) -> Iterator[tuple[str, Any]]:
    """For each of a trainer's numbers a NaN, and for each key a value that is not allowed."""
    constraints = {**SHARED, **kind.constraints}
    for name, default in kind.defaults.items():
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        if number:
            yield f"{node}.{name}", math.nan
        if name in constraints:
            refused = [value for value in PROBES if not constraints[name].allows(value)]
            yield from ((f"{node}.{name}", value) for value in refused[:1])
        elif number:  # one that may have any value has the constraint Number()
            yield f"{node}.{name}", type(default)(ABSURD)


def refuse(subject: Subject, key: str, value: Any) -> None:
    """Require that a setting is named where there are no data: whoever looks at them comes late.

    Raises:
        CheckFailed: it is not.
    """
    nowhere = ("DATASET.PATH", "nowhere", "MODEL.BACKBONE.NAME", "nowhere.safetensors")
    try:
        subject.build(*nowhere, key, value, folder=subject.world)
    except (ValueError, KeyError, AssertionError) as error:  # the last two are yacs's
        said = str(error)
    except FileNotFoundError as error:
        raise CheckFailed(f"{key} {value!r} is taken") from error
    require(key.rpartition(".")[2] in said, f"{key} {value!r}: the error does not name it: {said}")


def check_nan(subject: Subject) -> str:
    """A NaN in what learns, or else in the features, ends the run; it leaves no result."""
    by_steps = subject.learns_by_steps()
    trainer = subject.build("TEST.NO_TEST", by_steps)  # an evaluation of NaN would come too late
    spoil(trainer, what_learns=by_steps)
    try:
        trainer.train()
    except (FloatingPointError, ValueError) as error:
        said = str(error)
    else:
        raise CheckFailed("a training on NaN went to its end")
    require("nan" in said.lower(), f"the error does not name the NaN: {said}")
    return f"stops: {said}"


def spoil(trainer: CLIPTrainer, *, what_learns: bool) -> None:
    """Write NaN into what learns, or into the image tower's last layer.

    Raises:
        NotApplicable: nothing there to write into.
    """
    tower = [p for key, p in trainer.clip.named_parameters() if key == "visual.proj"]
    learning = [p for m in trainer._models.values() for p in m.parameters() if p.requires_grad]
    parameters = learning if what_learns else tower
    if not parameters:
        raise NotApplicable("nothing to write a NaN into")
    with torch.no_grad():
        for parameter in parameters:
            parameter.fill_(math.nan)
