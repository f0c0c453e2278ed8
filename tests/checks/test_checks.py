"""causalclip/checks: every registered trainer passes, and each broken one fails where it should."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from dassl.engine import TRAINER_REGISTRY

import causalclip.trainers
from causalclip import plugin
from causalclip.checks import command, trainer
from causalclip.checks.outcome import CheckFailed
from causalclip.checks.subject import Subject
from causalclip.checks.trainer import CHECKS, check_trainer, outcome, outcomes
from causalclip.checks.world import make_world
from causalclip.trainers.coop import CoOp
from causalclip.trainers.linear_probe import LinearProbe

METHODS = sorted(
    kind.__name__
    for module in plugin.modules_of(causalclip.trainers)
    for kind in plugin.methods_of(module)
)
CONFIGS = Path(__file__).parents[2] / "configs" / "trainers"
REFUSES_OTHER_CLASSES = {"LinearProbe", "TipAdapter", "TipAdapterF"}
FEWER = {  # choices to try than in the method's own configuration
    "CLIP_ICM": "SELECT: fixed, DIM_INV: 16, DRAWS: 4",
    "TipAdapter": "AUGMENT_EPOCHS: 2, SEARCH_STEP: [5, 5]",
    "TipAdapterF": "AUGMENT_EPOCHS: 2, SEARCH_STEP: [5, 5]",
}
LEARNS_NOTHING = {"ZeroshotCLIP", "ZeroshotCLIP2"}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    plugin.register_all()
    return make_world(tmp_path_factory.mktemp("world"), blocks=4)


@pytest.fixture(autouse=True)
def _registered_for_one_test_alone():
    name = (
        "_objects" if hasattr(TRAINER_REGISTRY, "_objects") else "_obj_map"
    )  # minidassl's, Dassl's
    before = dict(getattr(TRAINER_REGISTRY, name))
    yield
    setattr(TRAINER_REGISTRY, name, before)


@pytest.mark.parametrize("name", METHODS)
def test_every_registered_trainer_passes(name, world, tmp_path):
    files = [min((CONFIGS / name).glob("tiny*.yaml"))]
    if name in FEWER:
        files.append(tmp_path / "fewer.yaml")
        files[1].write_text(f"TRAINER: {{{name.upper()}: {{{FEWER[name]}}}}}")
    found = {each.check: each for each in outcomes(name, world, list(map(str, files)))}
    assert [str(each) for each in found.values() if each.verdict == "fail"] == []
    without = {check for check, each in found.items() if each.verdict == "not applicable"}
    assert without == ({"resume"} if name in LEARNS_NOTHING else set())
    assert found["other classes"].why.startswith("refuses") == (name in REFUSES_OTHER_CLASSES)


class UncheckedSettings(CoOp):
    constraints = {}


class SilentPredictions(CoOp):
    def report(self, split, evaluated, seconds):
        evaluated.prediction.main.probabilities[0] = 0.1
        super().report(split, evaluated, seconds)


class MovesCLIP(CoOp):
    def loss(self, images, labels):
        self.clip.ln_final.bias.data += 0.1
        return super().loss(images, labels)


class DrawsFromTheSystem(CoOp):
    def loss(self, images, labels):
        loss, scores = super().loss(images, labels)
        return loss * (1 + os.urandom(1)[0]), scores


class SeesItsWorkers(CoOp):
    def train_views(self):
        return [Brighter()]


class Brighter:
    """Another image in a loading process than in the training's."""

    def __call__(self, image):
        brightness = 0.5 if torch.utils.data.get_worker_info() else 0.1
        return torch.full((3, *image.size), brightness)


class Forgets(CoOp):
    """Counts its steps, which no checkpoint holds."""

    steps = 0

    def loss(self, images, labels):
        self.steps += 1
        loss, scores = super().loss(images, labels)
        return loss * self.steps, scores


class FitsAgain(LinearProbe):
    def fitted_with(self):
        return {**super().fitted_with(), "time": os.urandom(4).hex()}


class ReadsAnother(CoOp):
    def context(self):
        assert self.cfg.TRAINER.MAPLE.N_CTX
        return super().context()


class ClaimsOtherClasses(LinearProbe):
    knows_other_classes = True


class NeedsTwoImages(CoOp):
    def build_model(self):
        super().build_model()
        self.second = self.dm.dataset.train_x[len(self.classnames)]  # an IndexError, in no words


class TakesOneClass(CoOp):
    def build_data_loader(self):
        try:
            super().build_data_loader()
        except ValueError:
            self.num_source_domains, self.lab2cname = 1, {0: "ant"}


class SwallowsNaN(CoOp):
    def loss(self, images, labels):
        loss, scores = super().loss(images, labels)
        return loss.nan_to_num(), scores


class NeedsFp32(CoOp):
    def classify(self, image_features, text_features):
        assert image_features.dtype == torch.float32
        return super().classify(image_features, text_features)


BROKEN = [
    (UncheckedSettings, "settings", "TRAINER.COOP.N_CTX -1000000000000000 is taken"),
    (SilentPredictions, "answers", "sum to"),
    (MovesCLIP, "frozen", "moved CLIP's ln_final.bias"),
    (DrawsFromTheSystem, "determinism", "another prompt_learner ctx"),
    (SeesItsWorkers, "workers", "1 worker in place of 0 gives another"),
    (Forgets, "resume", "a kill after epoch 1 gives another prompt_learner ctx"),
    (FitsAgain, "resume", "is fitted again"),
    (ReadsAnother, "identity", "reads settings of another method, not its own: MAPLE"),
    (ClaimsOtherClasses, "other classes", "says that it knows other classes, but: "),
    (NeedsTwoImages, "one image", "IndexError.*test_checks.py, line"),
    (TakesOneClass, "one class", "one class is taken"),
    (SwallowsNaN, "nan", "went to its end"),
    (NeedsFp32, "precision", "AssertionError"),
]


def test_each_check_has_a_trainer_that_fails_it():
    assert {check for _, check, _ in BROKEN} == set(CHECKS)


@pytest.fixture
def registered(monkeypatch):
    """A function that registers a class for the length of a test, on either toolkit."""
    get = TRAINER_REGISTRY.get

    def register(kind):
        named = {kind.__name__: kind}
        monkeypatch.setattr(TRAINER_REGISTRY, "get", lambda name: named.get(name) or get(name))

    return register


@pytest.mark.parametrize(
    ("kind", "check", "why"), BROKEN, ids=[kind.__name__ for kind, _, _ in BROKEN]
)
def test_a_broken_trainer_fails_the_check_of_what_is_broken(kind, check, why, world, registered):
    registered(kind)
    found = outcome(check, CHECKS[check], Subject(kind.__name__, world))
    assert found.verdict == "fail"
    assert re.search(why, found.why), found.why


def holds(subject):
    return "as it should"


def fails(subject):
    raise CheckFailed(f"{subject.name} does not")


def test_all_failures_are_raised_at_once_in_a_test_of_ones_own(monkeypatch):
    monkeypatch.setattr(trainer, "make_world", lambda folder: folder)
    monkeypatch.setattr(trainer, "CHECKS", {"one": holds, "two": fails, "three": fails})
    with pytest.raises(CheckFailed, match="^CoOp: two: CoOp does not; three: CoOp does not$"):
        check_trainer("CoOp")
    monkeypatch.setattr(trainer, "CHECKS", {"one": holds})
    assert [str(each) for each in check_trainer(CoOp)] == [f"{'pass':<16}{'one':<16}as it should"]


@pytest.mark.parametrize(("checks", "status"), [({"a": holds}, 0), ({"a": holds, "b": fails}, 1)])
def test_the_command_prints_a_line_a_check_and_its_status_says_whether_all_pass(
    checks, status, monkeypatch, capsys
):
    monkeypatch.setattr(trainer, "CHECKS", checks)
    assert command.main(["CoOp", "KgCoOp"]) == status
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1 : 1 + len(checks)]] == [
        ["pass", "a"],
        ["fail", "b"],
    ][: len(checks)]
    assert [line for line in lines if not line.startswith(" ")] == ["CoOp", "KgCoOp"]


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
    monkeypatch.setattr(trainer, "CHECKS", words)
    mine = ["--import", "method_of_a_check", "--config-file", str(tmp_path / "mine.yaml")]
    assert command.main(["CheckedMethod", *mine]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["pass", "words", "3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["CoOpp"], "unknown trainer CoOpp; known: .*did you mean CoOp"),
        (["CoOp", "--import", "no_such_module"], "No module named 'no_such_module'"),
        (["CoOp", "--config-file", "none.yaml"], "none.yaml"),
    ],
)
def test_the_command_says_a_mistake_in_a_line(arguments, said, capsys):
    assert command.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^causalclip check: error: .*{said}", line)


def test_a_trainer_that_is_not_on_ours_is_refused(registered, world):
    class Foreign:
        pass

    registered(Foreign)
    with pytest.raises(ValueError, match="must be a CLIPTrainer .*, got Foreign"):
        Subject("Foreign", world)
