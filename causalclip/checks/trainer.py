"""Run all checks of a trainer, and report their outcomes."""

from __future__ import annotations

import contextlib
import io
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from causalclip import plugin
from causalclip.checks.checks import TRAINER_CHECKS, CheckFailed, NotApplicable
from causalclip.checks.world import Subject, make_world
from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.prompt_trainer import PromptTrainer

# isort: split
from dassl.engine import TRAINER_REGISTRY


@dataclass(frozen=True)
class CheckOutcome:
    """The verdict of one check on one trainer."""

    trainer: str
    check: str
    verdict: Literal["pass", "fail", "not applicable"]
    why: str

    def __str__(self) -> str:
        return f"{self.verdict:<16}{self.check:<16}{self.why}"


def check_trainer(trainer: str | type, *, config_files: Sequence[str] = ()) -> list[CheckOutcome]:
    """Check that a trainer follows the contract of the runs; takes seconds and needs no data.

    In a test of your method: `check_trainer(MyMethod)`.

    Args:
        trainer: a trainer's class, or the name under which it is registered.
        config_files: configuration files of the method; without any, its defaults.

    Returns:
        One outcome per check: passed, or not applicable.

    Raises:
        CheckFailed: names every check that failed, and what was seen.
        ValueError: a trainer that is no PromptTrainer or FeatureTrainer.
    """
    plugin.register_all()
    if isinstance(trainer, type):
        if trainer.__name__ not in TRAINER_REGISTRY.registered_names():
            TRAINER_REGISTRY.register(trainer)
        trainer = trainer.__name__
    with small_world() as world:
        results = list(outcomes(trainer, world, config_files))
    failed = [f"{each.check}: {each.why}" for each in results if each.verdict == "fail"]
    if failed:
        raise CheckFailed(f"{trainer}: {'; '.join(failed)}")
    return results


def registered_trainers() -> list[str]:
    """Return the names of all trainers that can be checked."""
    registered = plugin.registered(TRAINER_REGISTRY)
    kinds = (PromptTrainer, FeatureTrainer)
    return sorted(kind.__name__ for kind in registered if issubclass(kind, kinds))


@contextlib.contextmanager
def small_world() -> Iterator[Path]:
    """Yield a temporary folder with the files of `make_world`."""
    with tempfile.TemporaryDirectory(prefix="causalclip-check-") as folder:
        yield make_world(Path(folder))


def outcomes(name: str, world: Path, config_files: Sequence[str] = ()) -> Iterator[CheckOutcome]:
    """Yield the outcome of each check of a registered trainer.

    Raises:
        ValueError: a trainer that is no PromptTrainer or FeatureTrainer.
    """
    subject = Subject(name, world, config_files)
    for check in TRAINER_CHECKS:
        yield outcome(check, subject)


def outcome(check: str, subject: Subject) -> CheckOutcome:
    """Return the outcome of one check; what the trainer prints is hidden."""
    verdict = "fail"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            verdict, why = "pass", TRAINER_CHECKS[check](subject)
    except NotApplicable as reason:
        verdict, why = "not applicable", str(reason)
    except CheckFailed as failure:
        why = str(failure)
    except Exception as error:  # noqa: BLE001 (whatever a method raises fails the check)
        last = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())
        place = f"{Path(last.filename).name}, line {last.lineno}"
        why = f"{type(error).__name__}: {message} ({place})"
    return CheckOutcome(subject.name, check, verdict, why)
