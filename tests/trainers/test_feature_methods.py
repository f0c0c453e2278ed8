"""GDA, LP++ and ProLIP: against the published code (golden/), scikit-learn, and plain formulas."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import feature_inputs
from golden.cases import assert_close
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch.nn import functional as F

from causalclip.clip.backbone import load_clip
from causalclip.clip.encode import encode_image, encode_image_unprojected
from causalclip.trainers.gda import borrowed_gaussians, class_gaussians, gaussian_logits
from causalclip.trainers.lp_plus_plus import fit_blended_probe
from causalclip.trainers.prolip import fine_tuned

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "features.npz")
TOLERANCE = 1e-9  # relative to a tensor's largest entry; both sides are float64


def unit(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1)


def inputs(name: str, classes: int, shots: int, width: int):
    """Unit training features of two equal passes, labels, unit texts and unit test features."""
    train, labels = feature_inputs.labelled(f"{name}.train", classes, shots, width)
    text = feature_inputs.texts(name, classes, width)
    test = feature_inputs.labelled(f"{name}.test", classes, 2, width)[0]
    return unit(train).repeat(2, 1), labels.repeat(2), unit(text), unit(test)


@pytest.mark.parametrize(
    ("name", "shape", "covariance"),
    [("gda", (4, 6, 24), "pooled"), ("gda_base", (3, 30, 512), "classes")],
)
def test_gda_equals_the_published_classifier(name, shape, covariance):
    train, labels, text, test = inputs(name, *shape)
    own = gaussian_logits(test, *class_gaussians(train, labels, shape[0], covariance))
    logits = 100 * test @ text.T + float(GOLDEN[f"{name}/alpha"]) * own
    assert_close(logits, GOLDEN[f"{name}/logits"], TOLERANCE, "logits")


def test_gda_borrows_images_for_new_classes_as_published():
    train = inputs("gda_base", 3, 30, 512)[0]
    text = unit(feature_inputs.texts("gda_new", 2, 512))
    test = unit(feature_inputs.labelled("gda_new.test", 2, 3, 512)[0])
    own = gaussian_logits(test, *borrowed_gaussians(train, text, 64, 16))
    logits = 100 * test @ text.T + float(GOLDEN["gda_base/alpha"]) * own
    assert_close(logits, GOLDEN["gda_base/new_logits"], TOLERANCE, "logits")


class Shrunk:
    """The paper's estimate of the common covariance, for scikit-learn."""

    def __init__(self, centred: np.ndarray) -> None:
        self.centred = centred

    def fit(self, _features: np.ndarray) -> None:
        rows, width = self.centred.shape
        covariance = np.cov(self.centred.T)
        scatter = (rows - 1) * covariance + np.trace(covariance) * np.eye(width)
        self.covariance_ = scatter / width


class OfTheClass:
    """The unbiased covariance of one class, for scikit-learn."""

    def fit(self, features: np.ndarray) -> None:
        self.covariance_ = np.cov(features.T)


@pytest.mark.parametrize("covariance", ["pooled", "classes"])
def test_gda_is_linear_discriminant_analysis(covariance):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    features = rng.normal(size=(3, 6))[labels] + rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6))
    centred = features - np.stack([features[labels == k].mean(0) for k in range(3)])[labels]
    estimator = Shrunk(centred) if covariance == "pooled" else OfTheClass()
    oracle = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=estimator)
    oracle.fit(features, labels)
    fitted = class_gaussians(torch.tensor(features), torch.tensor(labels), 3, covariance)
    ours = gaussian_logits(torch.tensor(features), *fitted)
    np.testing.assert_allclose(ours.numpy(), oracle.decision_function(features), rtol=1e-8)


def test_a_covariance_of_each_class_needs_two_features_of_it():
    labels = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match="COVARIANCE classes needs two features a class.*got 1"):
        class_gaussians(torch.eye(3), labels, 2, "classes")


def test_lp_plus_plus_takes_the_published_steps():
    train, labels = feature_inputs.labelled("lpp.train", 5, 4, 16)
    text = unit(feature_inputs.texts("lpp", 5, 16))
    fitted = fit_blended_probe((unit(train), labels), text, None, steps=60)
    assert fitted.facts == {"step": 60, "validation_accuracy": None}
    for name in ("weight", "bias", "alpha"):
        assert_close(getattr(fitted, name), GOLDEN[f"lpp/{name}"], TOLERANCE, name)
    # the loss before the last step, from the step before it
    before = fit_blended_probe((unit(train), labels), text, None, steps=59)
    loss = F.cross_entropy(before.logits(unit(train), text), labels)
    assert loss.item() == pytest.approx(GOLDEN["lpp/losses"][59], rel=1e-6)


def test_lp_plus_plus_keeps_the_last_of_the_best_steps_on_validation():
    train, labels = feature_inputs.labelled("lpp.train", 5, 4, 16)
    val, answers = feature_inputs.labelled("lpp.val", 5, 4, 16)
    text, both = unit(feature_inputs.texts("lpp", 5, 16)), (unit(train), labels)
    fitted = fit_blended_probe(both, text, (unit(val), answers), steps=60)
    best = int(GOLDEN["lpp/best_step"])
    assert fitted.facts["step"] == best < 60
    again = fit_blended_probe(both, text, None, steps=best)
    assert torch.equal(fitted.weight, again.weight)
    hits = fitted.logits(unit(val), text).argmax(-1) == answers
    assert fitted.facts["validation_accuracy"] == pytest.approx(100 * hits.float().mean().item())


def test_prolip_takes_the_published_steps():
    start = feature_inputs.projection("prolip", 20, 12)
    views = [feature_inputs.labelled(f"prolip.{view}", 4, 3, 20) for view in (1, 2, 0)]
    text = unit(feature_inputs.texts("prolip", 4, 12))

    def classify(features):
        return 100 * unit(features) @ text.T

    fitted = fine_tuned(start, cycle(views), classify, lr=1e-3, steps=8, weight=1 / 3)
    assert_close(fitted.projection, GOLDEN["prolip/projection"], TOLERANCE, "projection")
    test = feature_inputs.labelled("prolip.test", 4, 2, 20)[0]
    assert_close(classify(test @ fitted.projection), GOLDEN["prolip/logits"], TOLERANCE, "logits")
    moved = ((fitted.projection - start) ** 2).sum().item()
    assert 0 < fitted.facts["distance"] < moved  # of the step before


def test_prolip_reads_what_clip_projects():
    clip = load_clip("tiny")
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        before = encode_image_unprojected(clip, images)
        torch.testing.assert_close(before @ clip.visual.proj, encode_image(clip, images))
    assert before.shape == (3, clip.visual.conv1.weight.shape[0])
