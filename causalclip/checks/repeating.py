"""That a run can be repeated: in the same bits, after a kill too, and under no other's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from causalclip.checks.outcome import CheckFailed, NotApplicable, require
from causalclip.checks.subject import EPOCHS, Run, Subject, different
from causalclip.engine.features import FeatureTrainer
from causalclip.runs.identity import NO_MATTER


class Killed(Exception):  # noqa: N818 (stands for the end of a process)
    """A process ends between two epochs."""


def check_determinism(subject: Subject) -> str:
    """One seed gives one result."""
    return same(subject.whole, subject.run(), "the same seed")


def check_workers(subject: Subject) -> str:
    """Who reads the images does not matter."""
    return same(subject.whole, subject.run("DATALOADER.NUM_WORKERS", 1), "1 worker in place of 0")


def same(one: Run, other: Run, under: str) -> str:
    """Require equal bits.

    Raises:
        CheckFailed: names what differs.
    """
    found = one.differences(other)
    require(not found, f"{under} gives another {', '.join(found[:3])}")
    return f"{len(one.learned)} learned values and all answers are equal"


def check_resume(subject: Subject) -> str:
    """A run that was killed between two epochs ends in the bits of one that was not.

    Raises:
        CheckFailed: it does not.
        NotApplicable: nothing is learned.
    """
    if issubclass(subject.kind, FeatureTrainer):
        return _reused(subject)
    if not subject.learns_by_steps():
        raise NotApplicable("learns nothing")
    folder = subject.new_folder()
    _killed(subject, folder)
    resumed = subject.run(folder=folder)
    start = resumed.trainer.start_epoch
    require(start == 1, f"killed after epoch 1 of {EPOCHS}, gone on after {start}")
    return same(subject.whole, resumed, "a kill after epoch 1")


def _killed(subject: Subject, folder: Path) -> None:
    trainer = subject.build(folder=folder)
    after_epoch = trainer.after_epoch

    def die() -> None:
        after_epoch()
        raise Killed

    trainer.after_epoch = die
    try:
        trainer.train()
    except Killed:
        return
    raise CheckFailed("after_epoch is not called, where runs are saved")


def _reused(subject: Subject) -> str:
    """A finished fit is taken as it is, in its own folder, and only by the same settings."""

    def refuse() -> NoReturn:
        raise CheckFailed("a finished fit of the same settings is fitted again")

    again = subject.build(folder=subject.whole.folder)
    assert isinstance(again, FeatureTrainer)
    learned, again.fit = subject.whole.learned, refuse
    again.train()
    run = Run(again, subject.whole.folder)
    require(not different(learned, run.learned), "a fit that was loaded is another")
    return "a finished fit is taken as it is"


def check_identity(subject: Subject) -> str:
    """Settings that count are in the fingerprint, others are not, and no other method's is read."""
    plain = subject.fingerprint()
    require(plain == subject.fingerprint(), "the same settings have two fingerprints")
    idle = ("DATALOADER.NUM_WORKERS", 3, "TRAIN.PRINT_FREQ", 7)
    assert {key for key in idle if isinstance(key, str)} <= NO_MATTER.keys()
    require(plain == subject.fingerprint(*idle), "settings of no effect change the fingerprint")
    own = other_settings(subject)
    for key, value in [("SEED", 2), ("OPTIM.LR", 0.123), *own]:
        require(plain != subject.fingerprint(key, value), f"{key} is not in the fingerprint")
    _reads_its_own(subject)
    return f"a fingerprint of its own for each of {len(own) + 2} settings"


def other_settings(subject: Subject) -> list[tuple[str, Any]]:
    """Another value for each of a trainer's settings that has a number, a flag or text."""
    changes = {
        bool: lambda v: not v,
        int: lambda v: v + 1,
        float: lambda v: v + 1,
        str: lambda v: v + "x",
    }
    settings = subject.whole.trainer.settings
    return [
        (f"{subject.node}.{key}", changes[type(value)](value))
        for key, value in settings.items()
        if type(value) in changes
    ]


def _reads_its_own(subject: Subject) -> None:
    """A run without other methods' settings: the fingerprint leaves them out."""
    cfg = subject.cfg("OPTIM.MAX_EPOCH", 1).clone()
    cfg.defrost()
    for node in set(cfg.TRAINER) - {"NAME", subject.kind.config_node}:
        del cfg.TRAINER[node]
    cfg.freeze()
    try:
        trainer = subject.of(cfg)
        trainer.train()
    except (AttributeError, KeyError) as error:
        raise CheckFailed(f"reads settings of another method, not its own: {error}") from error
    identity, name = trainer.checkpoint_identity(), subject.name
    said = identity.get("trainer"), identity.get("weights"), identity.get("classnames")
    require(said == (name, trainer.digest, trainer.classnames), f"its checkpoints say {said}")
