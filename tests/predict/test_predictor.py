"""Predictions for single pictures equal the evaluation of the run, without its data."""

from __future__ import annotations

import shutil

import dassl
import numpy as np
import pytest
import torch
from dassl.engine import build_trainer
from PIL import Image

from causalclip import Predictor
from causalclip.clip.backbone import load_clip
from causalclip.clip.interface import tokenize
from causalclip.engine.draws import generators_kept
from causalclip.predict.commands import explain_main, export_main, predict_main
from causalclip.predict.pictures import BrokenImage, open_image
from causalclip.records.identity import Identity, write_run

METHODS = ["ZeroshotCLIP", "CoOp", "CoCoOp", "CDC", "CLIP_ICM", "LinearProbe", "TipAdapter"]


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_of_the_evaluation(method, run, recorded):
    expected = recorded(run(method))
    rows = np.linspace(0, len(expected["label"]) - 1, 6).astype(int)
    paths = expected["path"][rows].tolist()
    answers = Predictor.load(run(method))(paths)
    assert [answer.image for answer in answers] == paths
    assert [answer.label for answer in answers] == expected["prediction"][rows].tolist()
    for answer, row in zip(answers, rows, strict=True):
        # a probe with C = 100,000 has weights in the tens, which scale a feature's rounding
        np.testing.assert_allclose(answer.probabilities, expected["probabilities"][row], atol=1e-5)
        assert answer.uncertainty == pytest.approx(expected["uncertainty"][row], rel=1e-4, abs=1e-6)
        for name, reading in answer.readings.items():
            array = expected[f"{name}/probabilities"][row]
            np.testing.assert_allclose(reading.probabilities, array, atol=1e-6)


def test_cdc_answers_in_the_same_bits_with_its_conflict_and_every_template(run, recorded):
    expected = recorded(run("CDC"))
    answers = Predictor.load(run("CDC"))(expected["path"].tolist())  # in the same batches
    assert np.array_equal([a.probabilities for a in answers], expected["probabilities"])
    assert np.array_equal([a.uncertainty for a in answers], expected["uncertainty"])
    assert answers[7].extras["conflict"] == pytest.approx(expected["conflict"][7], rel=1e-6)
    for m, vote in enumerate(answers[7].members["template"]):
        assert np.array_equal(vote.probabilities, expected["template_probabilities"][7, m])
        assert vote.uncertainty == pytest.approx(expected["template_uncertainty"][7, m])
    (name, p), *others = answers[7].top(3)
    assert (name, p) == (answers[7].classname, answers[7].probability)
    assert p >= others[0][1] >= others[1][1]


def test_a_picture_in_memory_and_a_folder_are_answered_too(run, recorded, tmp_path):
    path = recorded(run("CoOp"))["path"][0]
    (tmp_path / "deep").mkdir()
    copies = [shutil.copy(path, tmp_path / name) for name in ("b.png", "deep/a.PNG")]
    (tmp_path / "notes.txt").write_text("no image")
    predictor = Predictor.load(run("CoOp"))
    (memory,) = predictor(Image.open(path))
    below = predictor(tmp_path)
    assert [answer.image for answer in (memory, *below)] == ["", *map(str, copies)]
    for answer in below:
        np.testing.assert_allclose(answer.probabilities, memory.probabilities, atol=1e-6)


def test_arrays_are_answered_as_the_file_they_were_read_from(run, recorded):
    path = recorded(run("CoOp"))["path"][0]
    predictor, pixels = Predictor.load(run("CoOp")), np.asarray(Image.open(path).convert("RGB"))
    tensor = torch.tensor(pixels).permute(2, 0, 1)
    single = [pixels, tensor, tensor / 255, (tensor / 255).double()]
    batches = [np.stack([pixels] * 2), torch.stack([tensor] * 2), [pixels, tensor / 255]]
    (expected,) = predictor(path)
    for given, count in [*zip(single, [1] * 4, strict=True), *zip(batches, [2] * 3, strict=True)]:
        answers = predictor(given)
        assert [answer.image for answer in answers] == [""] * count
        for answer in answers:
            np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-6)


PIXELS = np.zeros((8, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PIXELS / 255, r"an array \(\[N,\] H, W, 3\) of uint8, got \(8, 6, 3\) of float64"),
        (PIXELS[..., :2], r"got \(8, 6, 2\) of uint8"),
        (PIXELS[0], r"got \(6, 3\) of uint8"),
        (PIXELS[None][:0], r"got \(0, 8, 6, 3\) of uint8"),
        (torch.tensor(PIXELS), r"a tensor \(\[N,\] 3, H, W\) of uint8 or float, got \(8, 6, 3\)"),
        (torch.zeros(3, 8, 6, dtype=torch.int64), r"got \(3, 8, 6\) of torch\.int64"),
        (torch.full((3, 8, 6), 2.0), r"floats must be in \[0, 1\], got 2 to 2"),
        (torch.full((3, 8, 6), torch.nan), r"floats must be in \[0, 1\], got nan"),
        (3, "a path, a PIL image or an array, got int"),
    ],
)
def test_an_array_that_is_no_image_is_an_error_that_says_what_came(given, message, run):
    with pytest.raises((ValueError, TypeError), match=message):
        Predictor.load(run("CoOp"))(given)


def test_batches_come_as_they_fill(run, recorded):
    predictor, read = Predictor.load(run("ZeroshotCLIP")), []
    paths = [*recorded(run("ZeroshotCLIP"))["path"]] * 6
    next(predictor.stream(read.append(path) or path for path in paths))
    assert len(read) == predictor.batch_size < len(paths)


def test_a_broken_picture_comes_in_its_place(run, recorded, tmp_path):
    path = recorded(run("CoOp"))["path"][0]
    (tmp_path / "cut.png").write_bytes(open(path, "rb").read()[:60])
    (tmp_path / "text.png").write_text("no image")
    given = [path, tmp_path / "cut.png", tmp_path / "text.png", tmp_path / "gone.png", path]
    predictor = Predictor.load(run("CoOp"))
    first, *broken, last = predictor.stream(given)
    assert all(isinstance(item, BrokenImage) and item.reason for item in broken)
    assert [item.image for item in broken] == [str(x) for x in given[1:4]]
    assert np.array_equal(first.probabilities, last.probabilities)
    with pytest.raises(OSError, match=r"cannot read the image .*cut\.png"):
        predictor(given[1])


@pytest.mark.skipif(
    not dassl.__version__.endswith("+mini"), reason="Dassl reads what Pillow's conversion makes"
)
def test_pixels_without_a_known_range_are_broken_and_16_bit_grey_is_none(tmp_path):
    """Pillow's own conversion makes floats black and 16 bits white."""
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "grey.png")
    for source in (str(tmp_path / "float.tiff"), Image.new("F", (4, 4)), Image.new("I;16", (4, 4))):
        broken = open_image(source)
        assert isinstance(broken, BrokenImage) and "range" in broken.reason
    grey = open_image(str(tmp_path / "grey.png"))
    assert isinstance(grey, Image.Image) and grey.getpixel((0, 0)) == (128, 128, 128)


# Other class names


def test_zero_shot_takes_any_class_names(run, recorded, random_clip):
    path = recorded(run("ZeroshotCLIP"))["path"][0]
    predictor = Predictor.load(run("ZeroshotCLIP"), classes=["cat", "sports_car"])
    (answer,) = predictor(path)
    clip = load_clip(random_clip)
    with torch.no_grad():
        texts = [predictor.trainer.templates()[0].format(name) for name in ("cat", "sports car")]
        text = clip.encode_text(tokenize(texts))
        image = clip.encode_image(predictor.trainer.encoder.transform(Image.open(path))[None])
        cosines = torch.cosine_similarity(image, text)
        expected = (clip.logit_scale.exp() * cosines).softmax(-1)
    np.testing.assert_allclose(answer.probabilities, expected.numpy(), atol=1e-5)


def test_learned_prompts_take_other_class_names(run, recorded):
    path = recorded(run("CDC"))["path"][0]
    own = Predictor.load(run("CDC"))
    names = [*own.classnames[::-1], "cat"]
    (answer,), (before,) = Predictor.load(run("CDC"), classes=names)(path), own(path)
    # A class's logit does not depend on the others: with a new class, ratios stay equal.
    kept = answer.readings["logits"].probabilities[:-1][::-1]
    expected = before.readings["logits"].probabilities
    np.testing.assert_allclose(kept / kept.sum(), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "options", "classes", "message"),
    [
        ("LinearProbe", [], ["cat", "dog"], "LinearProbe knows only its 5 classes"),
        ("TipAdapter", [], ["cat", "dog"], "TipAdapter knows only its 5 classes"),
        ("CoOp", ["TRAINER.COOP.CSC", True], ["cat", "dog"], "class-specific numbers cannot move"),
        ("ZeroshotCLIP", [], ["cat", "dog", "cat"], "given twice: cat"),
        ("ZeroshotCLIP", [], ["sea_lion", "sea lion"], "given twice: sea lion, sea_lion"),
        ("ZeroshotCLIP", [], ["cat"], "two class names or more"),
        ("ZeroshotCLIP", [], list(map(str, range(200_000))), "at most 100,000 class names"),
        ("ZeroshotCLIP", [], ["cat", " "], "none of them empty"),
    ],
)
def test_class_names_that_cannot_be_taken_are_refused(method, options, classes, message, run):
    with pytest.raises(ValueError, match=message):
        Predictor.load(run(method, *options), classes=classes)


# Folders


@pytest.fixture
def copied(run, tmp_path):
    """A copy of a CoOp run that a test can damage."""
    return shutil.copytree(run("CoOp"), tmp_path / "copy")


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path, copied):
    with pytest.raises(FileNotFoundError, match="finished run: there is no such folder"):
        Predictor.load(tmp_path / "gone")
    shutil.rmtree(copied / "prompt_learner")
    with pytest.raises(FileNotFoundError, match="no checkpoint .*prompt_learner"):
        Predictor.load(copied)
    (copied / "results.json").write_text('{"schema": 2, "tra')
    with pytest.raises(ValueError, match="cut or damaged"):
        Predictor.load(copied)
    (copied / "results.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"finished run: no results\.json"):
        Predictor.load(copied)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trainer", "MyOwn", "a run of MyOwn, known are .*CoOp.*: --import"),
        ("config.TRAINER.COOP.CSC", None, r"does not say TRAINER\.COOP\.CSC"),
        ("config.SEED", {"a": 1}, "Type mismatch .* SEED"),
        ("classnames", [], "has no class names"),
        ("classnames", ["cat", "\x1b[2J"], "class ?names must be printed text"),
        ("config.MODEL.BACKBONE.NAME", "tiny", "learned on the backbone .*, this run has tiny"),
    ],
)
def test_a_results_file_that_cannot_be_used_is_refused(key, value, message, copied, change):
    change(copied, key, value)
    with pytest.raises(ValueError, match=message):
        Predictor.load(copied)


def test_settings_that_this_version_does_not_know_do_not_matter(copied, change):
    change(copied, "config.TRAINER.GONE", {"KEY": 1})
    change(copied, "config.NEW_KEY", 1)
    change(copied, "config.MODEL.INIT_WEIGHTS", "/nowhere")  # a setting of training only
    assert len(Predictor.load(copied).classnames) == 5


@pytest.mark.parametrize("method", ["CoOp", "CLIP_ICM"])
def test_the_folder_of_an_evaluation_names_that_of_its_model(
    method, run, make_cfg, tmp_path, monkeypatch
):
    folder, options = run(method), ["TRAINER.CLIP_ICM.INTERVENTIONS", "BOTH"]
    monkeypatch.setattr("sys.argv", ["train.py", "--eval-only", "--model-dir", str(folder)])
    with generators_kept():
        evaluation = build_trainer(make_cfg(method, tmp_path, *options))
        evaluation.load_model(str(folder))
        evaluation.test()
    with pytest.raises(ValueError, match=f"of a model that lies in {folder}: give that folder"):
        Predictor.load(tmp_path)
    # evaluated again in its own folder, which contains the model
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.json"))
    assert Predictor.load(tmp_path).classnames == evaluation.classnames


def test_a_backbone_is_found_where_it_was_moved_and_another_is_refused(
    copied, random_clip, tmp_path, change
):
    for name in ("/nowhere.safetensors", "/nowhere/weights"):
        change(copied, "config.MODEL.BACKBONE.NAME", name)
        with pytest.raises(FileNotFoundError, match="no weights at /nowhere.*file with --backbone"):
            Predictor.load(copied)
    moved = shutil.copy(random_clip, tmp_path / "moved.safetensors")
    assert Predictor.load(copied, backbone=str(moved)).classnames[0] == "zero"
    write_run(copied, Identity({}, weights="0" * 64), {})
    with pytest.raises(ValueError, match="learned on another backbone, digest 000000000000, than"):
        Predictor.load(copied, backbone=str(moved))


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning")
def test_torchscript_is_trusted_by_the_user_and_not_by_a_file(
    run, recorded, random_clip, tmp_path, change, capsys
):
    folder, path = shutil.copytree(run("ZeroshotCLIP"), tmp_path / "run"), tmp_path / "script.pt"
    inputs = torch.zeros(1, 3, 32, 32), tokenize(["a photo"])
    torch.jit.trace(load_clip(random_clip), inputs, check_trace=False).save(str(path))
    backbone = {"NAME": str(path), "TRUST_TORCHSCRIPT": True, "ACTIVATION": "quick_gelu"}
    change(folder, "config.MODEL.BACKBONE", backbone)
    image = recorded(folder)["path"][0]
    for main, words in [(predict_main, [image]), (explain_main, [image]), (export_main, [])]:
        assert main([str(folder), *words]) == 2
        assert "is TorchScript, a program that runs" in capsys.readouterr().err
    assert predict_main([str(folder), image, "--trust-torchscript"]) == 0


def test_a_run_opens_no_data_outside_the_given_folder_and_no_changed_projection(
    run, copied, change, data_root, tmp_path
):
    change(copied, "config.DATASET.PATH", "../..")
    with pytest.raises(ValueError, match=r"the run's data, \.\./\.\., must be below --data"):
        Predictor.load(copied, data=str(data_root))
    path = tmp_path / "projection.safetensors"
    shutil.copy(run("CLIP_ICM") / "projection.safetensors", path)
    change(copied, "config.TRAINER.COOP.PROJECTION", str(path))
    recorded = {"TRAINER.COOP.PROJECTION": "a file of sha256 0123456789abcdef"}
    write_run(copied, Identity(recorded), {})
    with pytest.raises(ValueError, match=f"learned with another projection than {path}"):
        Predictor.load(copied)


# Risk


def test_a_risk_is_kept_on_the_validation_split(run, data_root):
    predictor = Predictor.load(run("CoOp"), data=str(data_root))
    chosen = predictor.threshold(80)
    items = predictor.trainer.dm.dataset.val
    answers = predictor([item.impath for item in items])
    given = [
        answer.label == item.label
        for answer, item in zip(answers, items, strict=True)
        if answer.uncertainty <= chosen.uncertainty + 1e-6
    ]
    assert chosen.images == len(items)
    assert 100 * len(given) / len(items) == pytest.approx(chosen.coverage)
    assert 100 * given.count(False) / len(given) == pytest.approx(chosen.risk)
    assert chosen.risk <= 80


def test_recorded_validation_predictions_are_enough_for_a_risk(copied, recorded, change):
    change(copied, "split", "val")
    arrays = recorded(copied)
    chosen = Predictor.load(copied).threshold(70)
    answered = arrays["uncertainty"] <= chosen.uncertainty
    wrong = (arrays["prediction"] != arrays["label"])[answered]
    assert chosen.images == len(arrays["label"])
    assert chosen.risk == pytest.approx(100 * wrong.mean())


def test_a_risk_without_validation_predictions_is_refused(run):
    with pytest.raises(ValueError, match="HandwrittenDigits, with --data"):
        Predictor.load(run("CoOp")).threshold(5)
    with pytest.raises(ValueError, match="no risk is known of other classes"):
        Predictor.load(run("CoOp"), classes=["a", "b"]).threshold(5)
    with pytest.raises(ValueError, match="give other classes or data"):
        Predictor.load(run("CoOp"), classes=["a", "b"], data="data")
