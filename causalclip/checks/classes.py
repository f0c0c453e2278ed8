"""That a method answers about other classes, one class and one image a class, or says that not."""

from __future__ import annotations

from pathlib import Path

from causalclip.checks.answering import answered
from causalclip.checks.outcome import CheckFailed, require
from causalclip.checks.subject import Run, Subject


def check_other_classes(subject: Subject) -> str:
    """What is learned on some classes names others, or refuses them in words."""
    whole = subject.whole
    knows = subject.kind.knows_other_classes and not whole.trainer.class_bound
    other = subject.build("DATASET.SUBSAMPLE_CLASSES", "new")
    try:
        other.load_model(str(whole.folder))
    except ValueError as error:
        said = in_words(error)
        require(not knows, f"says that it knows other classes, but: {said}")
        return f"refuses: {said}"
    require(knows, "says that it knows no other classes, but does not refuse them")
    other.test()
    answers = answered(Run(other, Path(other.output_dir)))
    require(other.classnames != whole.trainer.classnames, "the classes are the same")
    return f"answers: {answers}"


def check_one_image(subject: Subject) -> str:
    """One training image a class is enough, or refused in words."""
    try:
        return f"answers: {answered(subject.run('DATASET.NUM_SHOTS', 1))}"
    except ValueError as error:
        return f"refuses: {in_words(error)}"


def check_one_class(subject: Subject) -> str:
    """One class is refused in words, before work: there is nothing to tell apart.

    Raises:
        CheckFailed: it is not.
    """
    try:
        subject.build("DATASET.PATH", "alone", "DATASET.SUBSAMPLE_CLASSES", "all")
    except ValueError as error:
        return f"refuses: {in_words(error)}"
    raise CheckFailed("one class is taken, and every answer is known before")


def in_words(error: Exception) -> str:
    """What an error says.

    Raises:
        CheckFailed: nothing, or a word.
    """
    said = " ".join(str(error).split())
    require(len(said.split()) > 3, f"refuses without saying why: {type(error).__name__}: {said}")
    return said
