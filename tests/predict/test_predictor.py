"""A trained run on single pictures: as its evaluation, without its data, or a reason why not."""

from __future__ import annotations

import json
import shutil

import dassl
import numpy as np
import pytest
import torch
from PIL import Image

import causalclip
from causalclip import Predictor
from causalclip.clip.backbone import load_clip
from causalclip.clip.openai_clip import tokenize
from causalclip.predict.pictures import Broken, read
from causalclip.runs.identity import Identity, Recorded, write_run

SHOWN = 6
METHODS = ["ZeroshotCLIP", "CoOp", "CoCoOp", "CDC", "CLIP_ICM", "LinearProbe", "TipAdapter"]
# pairs from few images
ICM = ["TRAINER.CLIP_ICM.INTERVENTIONS", "BOTH", "TRAINER.CLIP_ICM.PROBE_TEXTS", "True"]
FEW = {"CLIP_ICM": ICM}


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_those_of_the_evaluation(method, run, recorded):
    folder = run(method, *FEW.get(method, []))
    there = recorded(folder)
    rows = np.linspace(0, len(there["label"]) - 1, SHOWN).astype(int)
    answers = Predictor.load(folder)(there["path"][rows].tolist())
    assert [answer.image for answer in answers] == there["path"][rows].tolist()
    assert [answer.label for answer in answers] == there["prediction"][rows].tolist()
    for answer, row in zip(answers, rows, strict=True):
        np.testing.assert_allclose(answer.probabilities, there["probabilities"][row], atol=1e-6)
        assert answer.uncertainty == pytest.approx(there["uncertainty"][row], rel=1e-4, abs=1e-6)
        for name, reading in answer.readings.items():
            expected = there[f"{name}/probabilities"][row]
            np.testing.assert_allclose(reading.probabilities, expected, atol=1e-6)


def test_the_same_batches_give_the_same_bits(run, recorded):
    folder = run("CDC")
    there = recorded(folder)
    answers = Predictor.load(folder)(there["path"].tolist())
    assert np.array_equal([a.probabilities for a in answers], there["probabilities"])
    assert np.array_equal([a.uncertainty for a in answers], there["uncertainty"])


def test_cdc_answers_with_its_conflict_and_every_template(run, recorded):
    there = recorded(run("CDC"))
    (answer,) = Predictor.load(run("CDC"))(there["path"][0])
    assert answer.extras["conflict"] == pytest.approx(there["conflict"][0], rel=1e-4)
    templates = np.stack([vote.probabilities for vote in answer.members["template"]])
    np.testing.assert_allclose(templates, there["template_probabilities"][0], atol=1e-6)
    (name, p), *others = answer.top(3)
    assert (name, p) == (answer.classname, answer.probability)
    assert p >= others[0][1] >= others[1][1]


def test_a_picture_in_memory_and_a_folder_are_answered_too(run, recorded, tmp_path):
    path = recorded(run("CoOp"))["path"][0]
    shutil.copy(path, tmp_path / "b.png")
    (tmp_path / "deep").mkdir()
    shutil.copy(path, tmp_path / "deep" / "a.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    predictor = Predictor.load(run("CoOp"))
    (memory,) = predictor(Image.open(path))
    below = predictor(tmp_path)
    assert memory.image == ""
    assert [answer.image for answer in below] == [
        str(tmp_path / "b.png"),
        str(tmp_path / "deep" / "a.PNG"),
    ]
    for answer in below:
        np.testing.assert_allclose(answer.probabilities, memory.probabilities, atol=1e-6)


def test_batches_come_as_they_fill(run, recorded):
    predictor = Predictor.load(run("ZeroshotCLIP"))
    asked = []

    def paths():
        for path in recorded(run("ZeroshotCLIP"))["path"]:
            asked.append(path)
            yield path

    next(predictor.stream(paths()))
    assert len(asked) == predictor.batch_size < len(recorded(run("ZeroshotCLIP"))["path"])


def test_a_broken_picture_comes_in_its_place(run, recorded, tmp_path):
    path = recorded(run("CoOp"))["path"][0]
    (tmp_path / "cut.png").write_bytes(open(path, "rb").read()[:60])
    (tmp_path / "text.png").write_text("no image")
    given = [path, tmp_path / "cut.png", tmp_path / "text.png", tmp_path / "gone.png", path]
    predictor = Predictor.load(run("CoOp"))
    first, *broken, last = predictor.stream(given)
    assert all(isinstance(item, Broken) and item.reason for item in broken)
    assert [item.image for item in broken] == [str(x) for x in given[1:4]]
    assert np.array_equal(first.probabilities, last.probabilities)
    with pytest.raises(OSError, match=r"cannot read the image .*cut\.png"):
        predictor(given[1])


# Other class names


def test_zero_shot_takes_any_class_names(run, recorded, random_clip):
    path = recorded(run("ZeroshotCLIP"))["path"][0]
    names = ["cat", "sports_car"]
    predictor = Predictor.load(run("ZeroshotCLIP"), classes=names)
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
    (answer,) = Predictor.load(run("CDC"), classes=names)(path)
    (before,) = own(path)
    # A softmax of a class's own logits: beside a new class the others keep their ratios.
    kept = answer.readings["logits"].probabilities[:-1][::-1]
    expected = before.readings["logits"].probabilities
    np.testing.assert_allclose(kept / kept.sum(), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("LinearProbe", [], "LinearProbe knows only its 5 classes"),
        ("TipAdapter", [], "TipAdapter knows only its 5 classes"),
        ("CoOp", ["TRAINER.COOP.CSC", True], "class-specific numbers cannot move"),
    ],
)
def test_a_method_that_cannot_take_other_classes_says_why(method, options, said, run):
    with pytest.raises(ValueError, match=said):
        Predictor.load(run(method, *options), classes=["cat", "dog"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["cat", "dog", "cat"], "given twice: cat"),
        (["sea_lion", "sea lion"], "given twice: sea lion, sea_lion"),
        (["cat"], "two class names or more"),
        (["cat", " "], "none of them empty"),
    ],
)
def test_class_names_must_differ_and_be_names(names, said, run):
    with pytest.raises(ValueError, match=said):
        Predictor.load(run("ZeroshotCLIP"), classes=names)


# Folders


@pytest.fixture
def copied(run, tmp_path):
    """A copy of a CoOp run, to be spoilt."""
    return shutil.copytree(run("CoOp"), tmp_path / "copy")


def test_a_folder_that_is_no_finished_run_is_said(tmp_path, copied):
    with pytest.raises(FileNotFoundError, match="finished run: there is no such folder"):
        Predictor.load(tmp_path / "gone")
    (copied / "results.json").write_text('{"schema": 2, "tra')
    with pytest.raises(ValueError, match="cut or damaged"):
        Predictor.load(copied)
    (copied / "results.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"finished run: no results\.json"):
        Predictor.load(copied)


def test_a_run_without_its_checkpoint_is_said(copied):
    shutil.rmtree(copied / "prompt_learner")
    with pytest.raises(FileNotFoundError, match="no checkpoint .*prompt_learner"):
        Predictor.load(copied)


def test_the_folder_of_an_evaluation_names_that_of_its_model(copied, change):
    change(copied, ["command"], ["train.py", "--eval-only", "--model-dir", "output/first"])
    trained_on = {
        "dataset": "HandwrittenDigits",
        "shots": 2,
        "seed": 1,
        "subsample_classes": "base",
    }
    change(copied, ["trained_on"], {**trained_on, "source_domains": [], "classnames": ["a", "b"]})
    with pytest.raises(ValueError, match="a model that lies in output/first: give that folder"):
        Predictor.load(copied)


def test_a_model_of_another_backbone_is_refused(copied, random_clip, tmp_path, change):
    change(copied, ["config", "MODEL", "BACKBONE", "NAME"], "tiny")
    with pytest.raises(ValueError, match="learned on the backbone .*, this run has tiny"):
        Predictor.load(copied)
    moved = shutil.copy(random_clip, tmp_path / "moved.safetensors")
    assert Predictor.load(copied, backbone=str(moved)).classnames[0] == "zero"


def test_a_file_that_holds_another_backbone_now_is_refused(copied):
    write_run(copied, Recorded(Identity({}, weights="0" * 64)), {})
    with pytest.raises(ValueError, match="learned on another backbone, digest 000000000000, than"):
        Predictor.load(copied)


def test_a_run_of_a_trainer_that_is_not_known_is_said(copied, change):
    change(copied, ["trainer"], "MyOwn")
    with pytest.raises(ValueError, match=r"a run of MyOwn, known are .*CoOp.*: --import"):
        Predictor.load(copied)


def test_a_run_from_before_the_method_had_a_setting_is_refused(copied):
    path = copied / "results.json"
    record = json.loads(path.read_text())
    del record["config"]["TRAINER"]["COOP"]["CSC"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"does not say TRAINER\.COOP\.CSC"):
        Predictor.load(copied)


def test_settings_that_this_version_does_not_know_do_not_matter(copied, change):
    change(copied, ["config", "TRAINER", "GONE"], {"KEY": 1})
    change(copied, ["config", "NEW_KEY"], 1)
    assert len(Predictor.load(copied).classnames) == 5


def test_the_public_name_is_the_class():
    from causalclip.predict.predictor import Predictor as home

    assert causalclip.Predictor is home


# Risk


def test_a_risk_is_kept_on_the_validation_split(run, data_root):
    predictor = Predictor.load(run("CoOp"), data=str(data_root))
    chosen = predictor.threshold(60)
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
    assert chosen.risk <= 60


def test_recorded_validation_predictions_are_enough_for_a_risk(copied, recorded, change):
    change(copied, ["split"], "val")
    there = recorded(copied)
    chosen = Predictor.load(copied).threshold(70)
    answered = there["uncertainty"] <= chosen.uncertainty
    wrong = (there["prediction"] != there["label"])[answered]
    assert chosen.images == len(there["label"])
    assert chosen.risk == pytest.approx(100 * wrong.mean())


def test_a_risk_without_validation_predictions_is_refused(run):
    with pytest.raises(ValueError, match="HandwrittenDigits, with --data"):
        Predictor.load(run("CoOp")).threshold(5)
    with pytest.raises(ValueError, match="no risk is known of other classes"):
        Predictor.load(run("CoOp"), classes=["a", "b"]).threshold(5)
    with pytest.raises(ValueError, match="give other classes or data"):
        Predictor.load(run("CoOp"), classes=["a", "b"], data="data")


@pytest.mark.skipif(
    not dassl.__version__.endswith("+mini"), reason="Dassl reads what Pillow's conversion makes"
)
def test_pixels_without_a_known_range_are_broken_and_16_bit_grey_is_none(tmp_path):
    """Pillow's own conversion makes floats black and 16 bits white."""
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "grey.png")
    for source in (str(tmp_path / "float.tiff"), Image.new("F", (4, 4)), Image.new("I;16", (4, 4))):
        broken = read(source)
        assert isinstance(broken, Broken) and "range" in broken.reason
    grey = read(str(tmp_path / "grey.png"))
    assert isinstance(grey, Image.Image) and grey.getpixel((0, 0)) == (128, 128, 128)
