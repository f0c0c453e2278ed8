"""Training from Python gives the predictor of a run, or an error before any work."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch

import causalclip
from causalclip import Predictor
from causalclip.errors import UserError
from causalclip.predict.commands import predict_main
from causalclip.records.identity import read_zero_shot
from causalclip.records.results import Result
from causalclip.report.summarize import main as summarize_main

SHORT = {"OPTIM.MAX_EPOCH": 1, "USE_CUDA": False}


@pytest.fixture(scope="session")
def photos(data_root, tmp_path_factory):
    """Ten digits of three classes as class folders."""
    folder = tmp_path_factory.mktemp("own") / "photos"
    for name in ("zero", "one", "two"):
        (folder / name).mkdir(parents=True)
        plain = data_root / "handwritten_digits"
        for image in sorted(plain.glob(f"**/{name}/*.png"))[:10]:
            shutil.copy(image, folder / name)
    return folder


@pytest.fixture(scope="session")
def trained(photos, random_clip, tmp_path_factory):
    """The predictor of a short training on photos/, which did not change the generators."""
    before, stdout = torch.get_rng_state(), sys.stdout
    predictor = causalclip.train(
        "CoOp",
        photos,
        backbone=random_clip,
        recipe="tiny",
        shots=2,
        output=tmp_path_factory.mktemp("trained") / "run",
        settings=SHORT,
    )
    assert torch.equal(before, torch.get_rng_state())
    assert sys.stdout is stdout
    return predictor


def images(photos):
    return sorted(map(str, photos.glob("*/*.png")))


def test_a_training_returns_what_loading_its_folder_returns(trained, photos):
    loaded = Predictor.load(trained.folder)
    assert trained.classnames == loaded.classnames == ["one", "two", "zero"]
    for own, other in zip(trained(photos), loaded(photos), strict=True):
        assert np.array_equal(own.probabilities, other.probabilities)
    assert "epoch [1/1]" in (trained.folder / "log.txt").read_text()


def test_evaluate_gives_the_metrics_of_the_runs_own_evaluation(trained, photos):
    recorded = Result.read(trained.folder / "results.json").metrics
    for metrics in (trained.evaluate(), Predictor.load(trained.folder).evaluate(photos)):
        assert metrics == pytest.approx(recorded, rel=1e-4)


def test_evaluate_refuses_classes_and_splits_that_are_not_there(trained, data_root):
    with pytest.raises(ValueError, match="handwritten_digits has classes that .* eight, five,"):
        trained.evaluate("handwritten_digits", root=data_root)
    with pytest.raises(ValueError, match="no images of ImageFolder in the split 'test': name its"):
        Predictor.load(trained.folder).evaluate()


def test_a_saved_predictor_answers_alike(trained, photos, tmp_path):
    trained.save(tmp_path / "copy")
    (own,), (copied,) = (p(images(photos)[0]) for p in (trained, Predictor.load(tmp_path / "copy")))
    assert np.array_equal(own.probabilities, copied.probabilities)
    with pytest.raises(FileExistsError):
        trained.save(tmp_path / "copy")


def test_a_predictor_and_an_answer_are_shown_in_a_line_and_in_a_table(trained, photos):
    assert repr(trained).startswith("Predictor(CoOp on ")
    assert "3 classes" in repr(trained)
    assert "<td>one, two, zero" in trained._repr_html_()
    (answer,) = trained(images(photos)[0])
    assert repr(answer).startswith(f"Answer({answer.classname!r}, probability=0.")
    assert "\n" not in repr(trained) + repr(answer)


def test_a_clip_that_does_not_know_the_classes_is_named(photos, random_clip, tmp_path, capsys):
    predictor = causalclip.train(
        "ZeroshotCLIP",
        photos,
        backbone=random_clip,
        recipe="tiny",
        shots=None,
        output=tmp_path / "fewshot",
    )
    expected = read_zero_shot(predictor.folder)
    assert expected is not None and expected.images == 15
    assert predictor.warning == ""  # too few images for a warning
    run = tmp_path / "fewshot" / "run.json"
    content = json.loads(run.read_text())
    content["zero_shot"] |= {"accuracy": 33.3, "images": 99}
    run.write_text(json.dumps(content))
    says = "does not know these classes: its zero-shot accuracy on 99 training images is 33.3 %"
    assert says in predictor.warning
    assert says in predictor._repr_html_()
    assert predict_main([str(predictor.folder), images(photos)[0]]) == 0
    assert says in capsys.readouterr().err
    assert summarize_main([str(tmp_path)]) == 0
    assert f"photos, all classes, {random_clip}: this CLIP {says}" in capsys.readouterr().out
    assert Predictor.load(predictor.folder, classes=["cat", "dog"]).warning == ""


def test_explain_draws_a_map_of_the_patches(trained, photos):
    assert trained.explain(images(photos)[0], classname="two").classname == "two"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "CoOP"}, "unknown trainer CoOP"),
        ({"recipe": "tinny"}, "unknown recipe tinny of CoOp; .* did you mean tiny"),
        ({"shots": 0}, "shots must be a positive number, or None for all images, got 0"),
        ({"settings": {"OPTIM.MAX_EPOCHS": 5}}, r"no setting OPTIM\.MAX_EPOCHS; did you mean OPT"),
        ({"settings": {"OPTIM.MAX_EPOCH": "five"}}, "Type mismatch"),
        ({"data": "digitz"}, "no data set, file or folder 'digitz'"),
    ],
)
def test_a_wrong_argument_is_an_error_before_any_work(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"method": "CoOp", "data": "dtd", "backbone": "tiny", **arguments}
    with pytest.raises(UserError, match=message):
        causalclip.train(given.pop("method"), given.pop("data"), **given)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_another_run_is_not_overwritten(trained, photos, random_clip):
    with pytest.raises(ValueError, match="holds another run: DATASET.NUM_SHOTS is 2 there, 1 here"):
        causalclip.train(
            "CoOp",
            photos,
            backbone=random_clip,
            recipe="tiny",
            shots=1,
            output=trained.folder,
            settings=SHORT,
        )
