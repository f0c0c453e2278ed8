"""Detection of foreign images, against scikit-learn and scores from the cosines."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden import weights
from sklearn.metrics import roc_auc_score, roc_curve
from yacs.config import CfgNode

from causalclip import Predictor
from causalclip.clip.backbone import load_clip
from causalclip.clip.encode import encode_image, encode_image_patches
from causalclip.engine.prediction import Reading
from causalclip.metrics import fpr_at_95
from causalclip.predict.commands import detect_main
from causalclip.predict.detect import foreign_scores, global_local_mcm


@pytest.mark.parametrize("digits", [1, 12])  # with ties, and without
def test_fpr95_is_that_of_the_roc_curve(digits):
    rng = np.random.default_rng(0)
    known, foreign = rng.normal(size=300).round(digits), rng.normal(1, size=170).round(digits)
    labels = np.repeat([0, 1], [300, 170])
    fpr, tpr, _ = roc_curve(labels, np.concatenate([known, foreign]), drop_intermediate=False)
    assert fpr_at_95(known, foreign) == pytest.approx(100 * fpr[np.argmax(tpr >= 0.95)])
    assert fpr_at_95(known, known + 10) == 0


def test_mcm_is_the_softmax_of_the_cosines_without_their_scale():
    cosines = torch.from_numpy(np.random.default_rng(1).uniform(0.1, 0.4, (50, 7)))
    probabilities = (100 * cosines).softmax(-1).float()
    scores = foreign_scores(probabilities, torch.zeros(50), scale=100.0)
    expected = 1 - cosines.softmax(-1).amax(-1)
    np.testing.assert_allclose(scores["MCM"], expected, atol=1e-7)
    np.testing.assert_allclose(scores["MSP"], 1 - probabilities.amax(-1), atol=1e-7)
    assert "MCM" not in foreign_scores(probabilities, torch.zeros(50), scale=None)


def test_energy_tells_apart_what_msp_cannot():
    """Energy separates images of equal probabilities; known images have larger logits."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 40, 5))
    logits[1] = logits[0] - rng.uniform(1, 2, (40, 1))  # this shift does not change the softmax
    known, foreign = (Reading.of_logits(torch.from_numpy(each)) for each in logits)
    scores = [
        foreign_scores(r.probabilities, r.uncertainty, r.energy, scale=None)
        for r in (known, foreign)
    ]
    np.testing.assert_allclose(scores[0]["MSP"], scores[1]["MSP"])
    np.testing.assert_allclose(scores[0]["energy"], -np.log(np.exp(logits[0]).sum(-1)))
    labels = np.repeat([0, 1], 40)
    auroc = roc_auc_score(labels, np.concatenate([each["energy"] for each in scores]))
    pairs = np.mean([[a < b for a in scores[0]["energy"]] for b in scores[1]["energy"]])
    assert auroc == pytest.approx(pairs)
    assert auroc > 0.7


@pytest.fixture
def pictures(tmp_path):
    """A function (class names) that makes a data set of noise, with three pictures per class."""
    from PIL import Image

    def make(*names: str) -> Path:
        rng = np.random.default_rng(0)
        for name in names:
            for part in ("train", "test"):
                folder = tmp_path / "foreign" / part / name
                folder.mkdir(parents=True)
                for i in range(3):
                    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        return tmp_path / "foreign"

    return make


@pytest.mark.parametrize("method", ["ZeroshotCLIP", "CDC"])
def test_a_run_is_asked_about_pictures_of_another_set(method, run, recorded, pictures, capsys):
    folder, foreign = run(method), pictures("cat", "dog")
    predictor = Predictor.load(folder)
    found = predictor.detect(foreign)
    paths = sorted((foreign / "test").rglob("*.png"))
    others = np.array([answer.uncertainty for answer in predictor(paths)])
    known = recorded(folder)["uncertainty"]
    labels = np.repeat([0, 1], [len(known), len(others)])
    auroc = 100 * roc_auc_score(labels, np.concatenate([known, others]))
    assert found["uncertainty"]["AUROC"] == pytest.approx(auroc)
    of_softmax = {"MCM", "energy"} if method == "ZeroshotCLIP" else set()
    assert set(found) == {"uncertainty", "MSP"} | of_softmax
    assert detect_main([str(folder), "--foreign", str(foreign)]) == 0
    assert f"{found['MSP']['FPR95']:.1f}" in capsys.readouterr().out


def test_gl_mcm_is_the_published_score(clip_files):
    """golden/gl_mcm.npz: AtsuMiyai/GL-MCM @8708a08, T 1, lambda 1, on golden/weights.py's CLIP."""
    golden = np.load(Path(__file__).parents[1] / "golden" / "gl_mcm.npz")
    clip, images = load_clip(clip_files["small"]), weights.images(0)
    patches = encode_image_patches(clip, images)
    np.testing.assert_allclose(patches[:2], golden["patches"], atol=1e-5)
    cfg = CfgNode({"DATASET": {"NAME": "OxfordPets"}})
    backbone = SimpleNamespace(encode=lambda images: encode_image(clip, images))
    trainer = SimpleNamespace(clip=clip, backbone=backbone, device="cpu", cfg=cfg)
    names, batches = weights.CLASSNAMES, lambda images: [images[:3], images[3:]]
    predictor = SimpleNamespace(trainer=trainer, classnames=names, batches=batches)
    np.testing.assert_allclose(global_local_mcm(predictor, images), golden["score"], atol=1e-6)


def test_gl_mcm_reads_the_known_images_again(run, recorded, pictures, capsys):
    folder, foreign = run("CoOp"), pictures("cat", "dog")
    assert detect_main([str(folder), "--foreign", str(foreign), "--gl-mcm"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "GL-MCM" in line)
    predictor = Predictor.load(folder)
    paths = sorted((foreign / "test").rglob("*.png"))
    known = global_local_mcm(predictor, recorded(folder)["path"].tolist())
    others = global_local_mcm(predictor, paths)
    labels = np.repeat([0, 1], [len(known), len(others)])
    auroc = 100 * roc_auc_score(labels, np.concatenate([known, others]))
    assert f"{auroc:.1f}" in row


def test_a_set_with_a_class_of_the_run_is_refused(run, pictures, capsys):
    folder = run("ZeroshotCLIP")
    name = json.loads((folder / "results.json").read_text())["classnames"][0]
    assert detect_main([str(folder), "--foreign", str(pictures(name.upper(), "cat"))]) == 2
    said = capsys.readouterr().err
    assert "must share no class with the run, foreign shares 1: ZERO" in said
