"""All checks of a trainer, one after the other."""

from __future__ import annotations

import contextlib
import io
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from causalclip import plugin
from causalclip.checks.answering import check_answers, check_frozen
from causalclip.checks.classes import check_one_class, check_one_image, check_other_classes
from causalclip.checks.outcome import CheckFailed, NotApplicable, Outcome
from causalclip.checks.precision import check_precision
from causalclip.checks.refusing import check_nan, check_settings
from causalclip.checks.repeating import (
    check_determinism,
    check_identity,
    check_resume,
    check_workers,
)
from causalclip.checks.subject import Subject
from causalclip.checks.world import make_world
from causalclip.engine.base import CLIPTrainer

# isort: split
from dassl.engine import TRAINER_REGISTRY

Check = Callable[[Subject], str]

CHECKS: Mapping[str, Check] = {
    "settings": check_settings,
    "answers": check_answers,
    "frozen": check_frozen,
    "determinism": check_determinism,
    "workers": check_workers,
    "resume": check_resume,
    "identity": check_identity,
    "other classes": check_other_classes,
    "one image": check_one_image,
    "one class": check_one_class,
    "nan": check_nan,
    "precision": check_precision,
}
"""Each by its name; what passes says what was seen."""


def check_trainer(trainer: str | type, *, config_files: Sequence[str] = ()) -> list[Outcome]:
    """Check that a trainer keeps what every run relies on; takes seconds, needs no data.

    In a test of a method of one's own: `check_trainer(MyMethod)`.

    Args:
        trainer: a trainer's class, or the name under which it is registered.
        config_files: its configuration; without, its defaults.

    Returns:
        One outcome a check: passed, or not applicable.

    Raises:
        CheckFailed: names every check that failed, and what was seen.
        ValueError: no trainer of causalclip's.
    """
    plugin.register_all()
    if isinstance(trainer, type):
        if trainer.__name__ not in TRAINER_REGISTRY.registered_names():
            TRAINER_REGISTRY.register(trainer)
        trainer = trainer.__name__
    with small_world() as world:
        found = list(outcomes(trainer, world, config_files))
    failed = [f"{each.check}: {each.why}" for each in found if each.verdict == "fail"]
    if failed:
        raise CheckFailed(f"{trainer}: {'; '.join(failed)}")
    return found


def registered_trainers() -> list[str]:
    """The names of all trainers that can be checked."""
    registered = plugin.registered(TRAINER_REGISTRY)
    return sorted(kind.__name__ for kind in registered if issubclass(kind, CLIPTrainer))


@contextlib.contextmanager
def small_world() -> Iterator[Path]:
    """A world in a folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="causalclip-check-") as folder:
        yield make_world(Path(folder))


def outcomes(name: str, world: Path, config_files: Sequence[str] = ()) -> Iterator[Outcome]:
    """What each check says of a registered trainer, as it is known.

    Raises:
        ValueError: no trainer of causalclip's.
    """
    subject = Subject(name, world, config_files)
    for check, function in CHECKS.items():
        yield outcome(check, function, subject)


def outcome(name: str, check: Check, subject: Subject) -> Outcome:
    """What one check says; a trainer's prints are not shown."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return Outcome(subject.name, name, "pass", check(subject))
    except NotApplicable as reason:
        return Outcome(subject.name, name, "not applicable", str(reason))
    except CheckFailed as failure:
        return Outcome(subject.name, name, "fail", str(failure))
    except Exception as error:  # noqa: BLE001 (whatever a method raises is the finding)
        return Outcome(subject.name, name, "fail", located(error))


def located(error: Exception) -> str:
    """An error nobody meant, and the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said} ({Path(last.filename).name}, line {last.lineno})"
