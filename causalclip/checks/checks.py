"""The checks: each takes the trainer as a `Subject` and returns a summary if it passes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from causalclip.checks.world import EPOCHS, CheckedRun, Subject, different_values
from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.records.results import RESULTS_FILE

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer

WRONG_EVERYWHERE = (("OPTIM.LR", math.nan), ("OPTIM.MAX_EPOCH", 0), ("TRAIN.PRINT_FREQ", 0))
WRONG_VALUES = (math.nan, -1, 0, -0.5, 10**15, 1e300, "nonsense", True, [])
"""Values to try: most settings do not allow all of them."""
NEUTRAL = ("DATALOADER.NUM_WORKERS", 3, "TRAIN.PRINT_FREQ", 7)


class CheckFailed(AssertionError):  # noqa: N818 (a verdict)
    """A trainer fails a check; the message states what was seen."""


class NotApplicable(Exception):  # noqa: N818 (a verdict, no error)
    """A check does not apply to a trainer; the message states why."""


class Killed(Exception):  # noqa: N818 (no error)
    """Simulates a process that is killed between two epochs."""


def fail_unless(holds: bool, why: str) -> None:
    """Raise CheckFailed with the message `why` unless `holds`."""
    if not holds:
        raise CheckFailed(why)


# Settings


def check_wrong_settings(subject: Subject) -> str:
    """Check that a wrong setting raises an error with its name before data or weights are read."""
    _check_refused(subject, f"{subject.node}.NO_SUCH_KEY", 1)
    wrong: list[tuple[str, Any]] = [*WRONG_EVERYWHERE]
    for name, row in subject.kind.settings_table.items():
        refused = [value for value in WRONG_VALUES if not row.allowed.allows(value)]
        wrong += [(f"{subject.node}.{name}", value) for value in refused[:2]]
    for key, value in wrong:
        _check_refused(subject, key, value)
    return f"{len(wrong) + 1} wrong settings named before work"


def _check_refused(subject: Subject, key: str, value: Any) -> None:
    # These files do not exist: a trainer that looks for them checks its settings too late.
    nowhere = ("DATASET.PATH", "nowhere", "MODEL.BACKBONE.NAME", "nowhere.safetensors")
    try:
        subject.build(*nowhere, key, value, folder=subject.world)
    except (ValueError, KeyError, AssertionError) as error:  # yacs raises the last two
        message = str(error)
    except FileNotFoundError as error:
        raise CheckFailed(f"{key} {value!r} is taken") from error
    name = key.rpartition(".")[2]
    fail_unless(name in message, f"{key} {value!r}: the error does not name it: {message}")


# One run


def check_predictions(subject: Subject) -> str:
    """Check that a run writes results.json and predictions.npz, and that they agree."""
    run = subject.reference
    record = json.loads((run.folder / RESULTS_FILE).read_text(encoding="utf-8"))
    facts = (record["trainer"], record["seed"], record["classnames"])
    expected = (subject.name, 1, run.trainer.classnames)
    fail_unless(facts == expected, f"results.json says {facts}, expected {expected}")
    summary = _check_probabilities(run)
    right = 100 * (run.answers["prediction"] == run.answers["label"]).mean()
    accuracy = record["metrics"]["accuracy"]
    agree = abs(accuracy - right) < 1e-3
    fail_unless(agree, f"results.json says {accuracy} %, the answers {right} %")
    return summary


def _check_probabilities(run: CheckedRun) -> str:
    answers, images = run.answers, len(run.trainer.dm.dataset.test)
    shape, expected = answers["probabilities"].shape, (images, len(run.trainer.classnames))
    fail_unless(shape == expected, f"probabilities of shape {shape}, expected {expected}")
    sums = answers["probabilities"].sum(1)
    fail_unless(np.allclose(sums, 1, atol=1e-4), f"probabilities sum to {sums.tolist()}")
    uncertainty = answers["uncertainty"]
    fail_unless(uncertainty.shape == (images,), f"uncertainty of shape {uncertainty.shape}")
    fail_unless(bool(np.isfinite(uncertainty).all()), f"uncertainty {uncertainty.tolist()}")
    return f"{expected[0]} images, {expected[1]} class{'' if expected[1] == 1 else 'es'}"


def check_frozen_clip(subject: Subject) -> str:
    """Check that training does not change CLIP, and that each learnable tensor gets a gradient."""
    trainer, fresh = subject.reference.trainer, subject.build()
    before = fresh.clip.state_dict()
    moved = [k for k, v in trainer.clip.state_dict().items() if not v.equal(before[k])]
    fail_unless(not moved, f"the training has moved CLIP's {', '.join(moved[:3])}")
    clip = trainer.clip.named_parameters()
    reached = [k for k, p in clip if p.requires_grad or p.grad is not None]
    fail_unless(not reached, f"gradients reach CLIP's {', '.join(reached[:3])}")
    if not subject.learns_by_steps():
        return "CLIP is as it was"
    learning, start = _parameters(trainer), _parameters(fresh)
    # A tensor that changed may lack a gradient at the end: its stage is over, or a ReLU is 0.
    idle = [
        key
        for key, p in learning.items()
        if p.equal(start[key]) and (p.grad is None or not p.grad.any())
    ]
    learns = bool(learning) and not idle
    fail_unless(learns, f"no gradient for {', '.join(idle[:3]) or 'anything'}")
    return f"CLIP is as it was, {len(learning)} tensors learn"


def _parameters(trainer: CLIPTrainer) -> dict[str, torch.nn.Parameter]:
    return {
        f"{name}.{key}": p
        for name, model in trainer._models.items()
        for key, p in model.named_parameters()
        if p.requires_grad
    }


# Repetition


def check_determinism(subject: Subject) -> str:
    """Check that one seed gives one result."""
    return _check_equal(subject.reference, subject.run(), "the same seed")


def check_workers(subject: Subject) -> str:
    """Check that the number of loading processes does not matter."""
    other = subject.run("DATALOADER.NUM_WORKERS", 1)
    return _check_equal(subject.reference, other, "1 worker in place of 0")


def _check_equal(one: CheckedRun, other: CheckedRun, condition: str) -> str:
    names = one.differences(other)
    fail_unless(not names, f"{condition} gives another {', '.join(names[:3])}")
    return f"{len(one.learned)} learned values and all answers are equal"


def check_resume(subject: Subject) -> str:
    """Check that a run that was killed between two epochs reaches the same bits.

    Raises:
        NotApplicable: nothing is learned.
    """
    trainer = subject.reference.trainer
    if isinstance(trainer, FeatureTrainer) and trainer.fit_class is not None:
        return _check_reuse(subject)
    if not subject.learns_by_steps():
        raise NotApplicable("learns nothing")
    folder = subject.new_folder()
    _kill_after_first_epoch(subject.build(folder=folder))
    resumed = subject.run(folder=folder)
    start = resumed.trainer.start_epoch
    fail_unless(start == 1, f"killed after epoch 1 of {EPOCHS}, gone on after {start}")
    return _check_equal(subject.reference, resumed, "a kill after epoch 1")


def _kill_after_first_epoch(trainer: CLIPTrainer) -> None:
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


def _check_reuse(subject: Subject) -> str:
    def refuse() -> NoReturn:
        raise CheckFailed("a finished fit of the same settings is fitted again")

    run = subject.reference
    again = subject.build(folder=run.folder)
    assert isinstance(again, FeatureTrainer)
    learned, again.fit = run.learned, refuse
    again.train()
    loaded = CheckedRun(again, run.folder).learned
    fail_unless(not different_values(learned, loaded), "a fit that was loaded is another")
    return "a finished fit is taken as it is"


def check_fingerprint(subject: Subject) -> str:
    """Check that the settings that affect results change a run's fingerprint, and no others.

    Also check that the method does not read settings of other methods.
    """
    plain = subject.fingerprint()
    fail_unless(plain == subject.fingerprint(), "the same settings have two fingerprints")
    neutral = plain == subject.fingerprint(*NEUTRAL)
    fail_unless(neutral, "settings of no effect change the fingerprint")
    changes = [("SEED", 2), ("OPTIM.LR", 0.123), *_changed_settings(subject)]
    for key, value in changes:
        differs = plain != subject.fingerprint(key, value)
        fail_unless(differs, f"{key} is not in the fingerprint")
    _check_own_settings(subject)
    return f"a fingerprint of its own for each of {len(changes)} settings"


def _changed_settings(subject: Subject) -> list[tuple[str, Any]]:
    """Return another value for each setting of the method that is a number, a flag or text."""

    def another(value: Any) -> Any:
        if isinstance(value, bool):
            return not value
        return value + ("x" if isinstance(value, str) else 1)

    settings = subject.reference.trainer.settings.items()
    plain = [(f"{subject.node}.{k}", v) for k, v in settings if isinstance(v, (int, float, str))]
    return [(key, another(value)) for key, value in plain]


def _check_own_settings(subject: Subject) -> None:
    """Train without the settings of other methods, which the fingerprint leaves out."""
    cfg = subject.cfg("OPTIM.MAX_EPOCH", 1).clone()
    cfg.defrost()
    for node in set(cfg.TRAINER) - {"NAME", subject.kind.config_node}:
        del cfg.TRAINER[node]
    cfg.freeze()
    try:
        trainer = subject.build_from(cfg)
        trainer.train()
    except (AttributeError, KeyError) as error:
        raise CheckFailed(f"reads settings of another method, not its own: {error}") from error
    identity = trainer.checkpointer.identity()
    facts = identity.get("trainer"), identity.get("weights"), identity.get("classnames")
    expected = (subject.name, trainer.backbone.digest, trainer.classnames)
    fail_unless(facts == expected, f"its checkpoints say {facts}")


# Other classes and few images


def check_other_classes(subject: Subject) -> str:
    """Check that the method predicts classes that it was not trained on, or refuses them."""
    run = subject.reference
    knows = run.trainer.knows_other_classes(run.trainer.settings)
    other = subject.build("DATASET.SUBSAMPLE_CLASSES", "new")
    try:
        other.load_model(str(run.folder))
    except ValueError as error:
        message = _sentence_of(error)
        fail_unless(not knows, f"says that it knows other classes, but: {message}")
        return f"refuses: {message}"
    fail_unless(knows, "says that it knows no other classes, but does not refuse them")
    other.test()
    summary = _check_probabilities(CheckedRun(other, Path(other.output_dir)))
    fail_unless(other.classnames != run.trainer.classnames, "the classes are the same")
    return f"answers: {summary}"


def check_one_image(subject: Subject) -> str:
    """Check that training on one image per class works, or is refused."""
    try:
        return f"answers: {_check_probabilities(subject.run('DATASET.NUM_SHOTS', 1))}"
    except ValueError as error:
        return f"refuses: {_sentence_of(error)}"


def check_one_class(subject: Subject) -> str:
    """Check that a single class is refused before work, as there is nothing to classify."""
    try:
        subject.build("DATASET.PATH", "alone", "DATASET.SUBSAMPLE_CLASSES", "all")
    except ValueError as error:
        return f"refuses: {_sentence_of(error)}"
    raise CheckFailed("one class is taken, and every answer is known before")


def _sentence_of(error: Exception) -> str:
    message = " ".join(str(error).split())
    kind, is_sentence = type(error).__name__, len(message.split()) > 3
    fail_unless(is_sentence, f"refuses without saying why: {kind}: {message}")
    return message


# Numbers


def check_nan(subject: Subject) -> str:
    """Check that a NaN in the learned tensors, or else in the features, stops the training."""
    by_steps = subject.learns_by_steps()
    trainer = subject.build("TEST.NO_TEST", by_steps)  # the error must come before the evaluation
    tower = [p for key, p in trainer.clip.named_parameters() if key == "visual.proj"]
    with torch.no_grad():
        for parameter in _parameters(trainer).values() if by_steps else tower:
            parameter.fill_(math.nan)
    try:
        trainer.train()
    except (FloatingPointError, ValueError) as error:
        message = str(error)
    else:
        raise CheckFailed("a training on NaN went to its end")
    fail_unless("nan" in message.lower(), f"the error does not name the NaN: {message}")
    return f"stops: {message}"


def check_precision(subject: Subject) -> str:
    """Check that the method runs in every precision of the device.

    Raises:
        NotApplicable: a method without PREC.
    """
    if "PREC" not in subject.kind.settings_table:
        raise NotApplicable("has no PREC")
    # A CPU computes fp16 a hundred times slower than fp32.
    precisions = ["amp", "bf16", *(["fp16"] if torch.cuda.is_available() else [])]
    for precision in precisions:
        options = (f"{subject.node}.PREC", precision, "OPTIM.MAX_EPOCH", 1, "USE_CUDA", True)
        _check_probabilities(subject.run(*options))
    return f"answers in {', '.join(precisions)}"


TRAINER_CHECKS: Mapping[str, Callable[[Subject], str]] = {
    "settings": check_wrong_settings,
    "answers": check_predictions,
    "frozen": check_frozen_clip,
    "determinism": check_determinism,
    "workers": check_workers,
    "resume": check_resume,
    "identity": check_fingerprint,
    "other classes": check_other_classes,
    "one image": check_one_image,
    "one class": check_one_class,
    "nan": check_nan,
    "precision": check_precision,
}
