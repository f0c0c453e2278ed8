"""causalclip/checks: every registered trainer passes, and each broken one fails where it should."""

from __future__ import annotations

import contextlib
import os
import re
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from dassl.engine import TRAINER_REGISTRY
from small_world import METHODS, recipe

from causalclip import check_trainer
from causalclip.checks import command, trainer
from causalclip.checks.checks import TRAINER_CHECKS, CheckFailed
from causalclip.checks.trainer import outcome, outcomes
from causalclip.checks.world import Subject
from causalclip.trainers.coop import CoOp
from causalclip.trainers.linear_probe import LinearProbe

REFUSES_OTHER_CLASSES = {"LPPlusPlus", "LinearProbe", "TipAdapter", "TipAdapterF"}
LEARNS_NOTHING = {"TDA", "TPT", "ZeroshotCLIP", "ZeroshotCLIP2"}


pytestmark = pytest.mark.usefixtures("registry_as_before")


@pytest.mark.parametrize("name", METHODS)
def test_every_registered_trainer_passes(name, small_world, tmp_path):
    before = set(active_children())
    results = {each.check: each for each in outcomes(name, small_world, recipe(name, tmp_path))}
    assert not set(active_children()) - before  # loading processes
    assert [str(each) for each in results.values() if each.verdict == "fail"] == []
    without = {check for check, each in results.items() if each.verdict == "not applicable"}
    assert without == ({"resume"} if name in LEARNS_NOTHING else set())
    assert results["other classes"].why.startswith("refuses") == (name in REFUSES_OTHER_CLASSES)


def writes_no_probabilities(self, split=None):
    accuracy = CoOp.test(self, split)
    path = Path(self.output_dir) / "predictions.npz"
    arrays = dict(np.load(path))
    arrays["probabilities"][0] = 0.1
    np.savez(path, **arrays)
    return accuracy


def with_loss(change):
    """A method whose loss is `change(trainer, loss)`."""

    def loss(self, images, labels):
        loss, scores = CoOp.loss(self, images, labels)
        return change(self, loss), scores

    return {"loss": loss}


def moves_clip(self, loss):
    self.clip.ln_final.bias.data += 0.1
    return loss


def counts_its_steps(self, loss):
    self.steps = getattr(self, "steps", 0) + 1  # not in any checkpoint
    return loss * self.steps


class Brighter:
    """Load another image in a loading process than in the training process."""

    def __call__(self, image):
        brightness = 0.5 if torch.utils.data.get_worker_info() else 0.1
        return torch.full((3, *image.size), brightness)


def fitted_at_a_time(self):
    return {**LinearProbe.fitted_with(self), "time": os.urandom(4).hex()}


def reads_another(self):
    assert self.cfg.TRAINER.MAPLE.N_CTX
    return CoOp.context(self)


def needs_two_images(self):
    CoOp.build_model(self)
    self.second = self.dm.dataset.train_x[len(self.classnames)]  # an IndexError without a reason


def takes_one_class(self):
    with contextlib.suppress(ValueError):
        CoOp.build_data_loader(self)
    self.num_source_domains, self.lab2cname = 1, {0: "ant"}


def needs_fp32(self, images, prompts):
    features = CoOp.image_features(self, images, prompts)
    assert features.dtype == torch.float32
    return features


def refuses(self):
    if self.classnames != self.fitted_classnames:
        raise ValueError("there are no other classes")


KNOWS = classmethod(lambda cls, settings: True)
CLAIMS = {"knows_other_classes": KNOWS, "check_fit": refuses}
BROKEN = [  # a trainer, its changed methods, the check that it fails, and why
    (CoOp, {"check_cfg": lambda self, cfg: None}, "settings", "OPTIM.LR nan is taken"),
    (CoOp, {"test": writes_no_probabilities}, "answers", "probabilities sum to"),
    (CoOp, with_loss(moves_clip), "frozen", "moved CLIP's ln_final.bias"),
    (
        CoOp,
        with_loss(lambda _, loss: loss * (1 + os.urandom(1)[0])),
        "determinism",
        "another .*ctx",
    ),
    (CoOp, {"train_views": lambda self: [Brighter()]}, "workers", "1 worker in place of 0 gives"),
    (CoOp, with_loss(counts_its_steps), "resume", "a kill after epoch 1 gives another .*ctx"),
    (LinearProbe, {"fitted_with": fitted_at_a_time}, "resume", "is fitted again"),
    (CoOp, {"context": reads_another}, "identity", "of another method, not its own: MAPLE"),
    (LinearProbe, CLAIMS, "other classes", "says that it knows other classes, but: "),
    (CoOp, {"build_model": needs_two_images}, "one image", "IndexError.*test_checks.py, line"),
    (CoOp, {"build_data_loader": takes_one_class}, "one class", "one class is taken"),
    (CoOp, with_loss(lambda _, loss: loss.nan_to_num()), "nan", "went to its end"),
    (CoOp, {"image_features": needs_fp32}, "precision", "AssertionError"),
]


def test_each_check_has_a_trainer_that_fails_it():
    assert {check for *_, check, _ in BROKEN} == set(TRAINER_CHECKS)


@pytest.mark.parametrize(("base", "methods", "check", "why"), BROKEN, ids=[b[2] for b in BROKEN])
def test_a_broken_trainer_fails_the_check_of_what_is_broken(base, methods, check, why, small_world):
    TRAINER_REGISTRY.register(type("Broken", (base,), methods))
    result = outcome(check, Subject("Broken", small_world))
    assert result.verdict == "fail"
    assert re.search(why, result.why), result.why


def holds(subject):
    return "as it should"


def fails(subject):
    raise CheckFailed(f"{subject.name} does not")


def test_all_failures_are_raised_at_once_in_a_test_of_ones_own(monkeypatch):
    monkeypatch.setattr(trainer, "make_world", lambda folder: folder)
    monkeypatch.setattr(trainer, "TRAINER_CHECKS", {"one": holds, "two": fails, "three": fails})
    with pytest.raises(CheckFailed, match="^CoOp: two: CoOp does not; three: CoOp does not$"):
        check_trainer("CoOp")
    monkeypatch.setattr(trainer, "TRAINER_CHECKS", {"one": holds})
    assert [str(each) for each in check_trainer(CoOp)] == [f"{'pass':<16}{'one':<16}as it should"]


@pytest.mark.parametrize(("checks", "status"), [({"a": holds}, 0), ({"a": holds, "b": fails}, 1)])
def test_the_command_prints_a_line_a_check_and_its_status_says_whether_all_pass(
    checks, status, monkeypatch, capsys
):
    monkeypatch.setattr(trainer, "TRAINER_CHECKS", checks)
    assert command.main(["CoOp", "KgCoOp"]) == status
    verdicts = {"a": ["pass", "a"], "b": ["fail", "b"]}
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    times = [line for line in lines if line[-1] == "s"]
    expected = [verdicts[check] for check in checks]
    assert lines == [["CoOp"], *expected, times[0], ["KgCoOp"], *expected, times[1]]


def test_the_command_checks_a_method_of_ones_own_with_its_configuration(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "method_of_a_check.py").write_text(
        "from causalclip.trainers.coop import CoOp\n\n\n"
        'class CheckedMethod(CoOp):\n    config_node = "CHECKED"\n'
    )
    (tmp_path / "mine.yaml").write_text("TRAINER:\n  CHECKED:\n    N_CTX: 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = {"words": lambda subject: str(subject.cfg().TRAINER.CHECKED.N_CTX)}
    monkeypatch.setattr(trainer, "TRAINER_CHECKS", words)
    mine = ["--import", "method_of_a_check", "--config-file", str(tmp_path / "mine.yaml")]
    assert command.main(["CheckedMethod", *mine]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["pass", "words", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["CoOpp"], "unknown trainer CoOpp; known: .*did you mean CoOp"),
        (["CoOp", "--import", "no_such_module"], "No module named 'no_such_module'"),
        (["CoOp", "--config-file", "none.yaml"], "none.yaml"),
    ],
)
def test_the_command_says_a_mistake_in_a_line(arguments, message, capsys):
    assert command.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^causalclip check: error: .*{message}", line)


def test_a_trainer_that_is_not_on_ours_is_refused(small_world):
    class Foreign:
        pass

    TRAINER_REGISTRY.register(Foreign)
    with pytest.raises(ValueError, match="must be a PromptTrainer or .*, got Foreign"):
        Subject("Foreign", small_world)
