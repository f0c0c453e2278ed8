"""A model saved to a folder, or to a server with the hub's protocol, gives equal answers."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from causalclip import Predictor
from causalclip.errors import UserError
from causalclip.predict.commands import predict_main

pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="session")
def picture(data_root):
    return next(map(str, sorted((data_root / "handwritten_digits").glob("**/*.png"))))


def probabilities(predictor, picture):
    return predictor(picture)[0].probabilities.tolist()


@pytest.mark.parametrize("method", ["CoOp", "LinearProbe", "ZeroshotCLIP"])
def test_a_saved_model_answers_as_the_run_does(run, method, picture, random_clip, tmp_path):
    trained = Predictor.load(run(method))
    trained.save_pretrained(tmp_path / "model")
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files >= {"model.safetensors", "results.json", "README.md"}
    assert not any(path.is_dir() for path in (tmp_path / "model").iterdir())
    loaded = Predictor.from_pretrained(tmp_path / "model", backbone=random_clip)
    # A sum of floats may depend on the memory layout of its numbers.
    assert probabilities(loaded, picture) == pytest.approx(probabilities(trained, picture))
    text = (tmp_path / "model" / "results.json").read_text()
    assert Path(random_clip).name in text and random_clip not in text


def test_the_card_has_recipe_data_figures_and_command(run, tmp_path):
    Predictor.load(run("CoOp")).save_pretrained(tmp_path / "model")
    _, head, text = (tmp_path / "model" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "causalclip"
    accuracy = json.loads((tmp_path / "model" / "results.json").read_text())["metrics"]["accuracy"]
    for part in ("HandwrittenDigits", f"{accuracy:.4g}", "CTX_INIT: a photo of a", "Command: `"):
        assert part in text


def test_a_model_is_pushed_and_read_from_the_hub(run, picture, random_clip, hub, capsys, tmp_path):
    trained = Predictor.load(run("CoOp"))
    assert "someone/digits" in trained.push_to_hub("someone/digits", token="a token")
    (hub / "someone" / "digits" / "code.pth.tar").write_bytes(b"a pickle")
    loaded = Predictor.load("someone/digits", backbone=random_clip)
    assert probabilities(loaded, picture) == probabilities(trained, picture)
    assert not list((tmp_path / "cache").glob("**/*.pth.tar"))
    words = ["someone/digits", picture, "--backbone", random_clip, "--format", "json"]
    capsys.readouterr()
    assert predict_main(words) == 0
    assert json.loads(capsys.readouterr().out)


def test_names_that_the_hub_does_not_have_and_foreign_models_are_named(hub):
    with pytest.raises(UserError, match="the hub has no model no/model for you"):
        Predictor.from_pretrained("no/model")
    (hub / "other" / "model").mkdir(parents=True)
    shutil.copy(__file__, hub / "other" / "model" / "README.md")
    with pytest.raises(UserError, match="is no model of causalclip: no results.json"):
        Predictor.from_pretrained("other/model")
    with pytest.raises(UserError, match="model other/model on the hub has no revision v2"):
        Predictor.from_pretrained("other/model", revision="v2")


def test_without_a_connection_a_cached_model_is_read_and_others_are_named_at_once(
    run, picture, random_clip, hub, monkeypatch
):
    trained = Predictor.load(run("CoOp"))
    trained.save_pretrained(hub / "someone" / "digits")
    Predictor.load("someone/digits", backbone=random_clip)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # discard
    loaded = Predictor.load("someone/digits", backbone=random_clip)
    assert probabilities(loaded, picture) == probabilities(trained, picture)
    naps = []
    monkeypatch.setattr(time, "sleep", naps.append)
    with pytest.raises(UserError, match="no model no/model in the cache, and none from http"):
        Predictor.load("no/model")
    assert naps == []  # no pause between retries


def test_a_foreign_or_damaged_file_of_weights_is_named(run, random_clip, tmp_path):
    model = tmp_path / "model"
    Predictor.load(run("CoOp")).save_pretrained(model)
    path = model / "model.safetensors"
    tensors = load_file(path)
    for metadata in ({}, {"format": "causalclip.model/1", "models": "{}"}):
        save_file(tensors, path, metadata)
        with pytest.raises(ValueError, match=r"model.safetensors must be a causalclip.model/1"):
            Predictor.from_pretrained(model, backbone=random_clip)
