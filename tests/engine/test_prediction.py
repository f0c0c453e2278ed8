"""Predictions keep the values and the precision of a method, from batch to file."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from causalclip.engine import evaluation
from causalclip.engine.prediction import Evaluated, Prediction, Reading


def reading(n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Reading:
    generator = torch.Generator().manual_seed(seed)
    return Reading.of_logits(torch.randn(n, 3, generator=generator, dtype=dtype))


def test_a_reading_of_logits_is_the_softmax_and_what_is_left_of_its_largest():
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    expected = softmax(logits.double().numpy(), axis=1)
    found = Reading.of_logits(logits)
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6)
    np.testing.assert_allclose(found.uncertainty, 1 - expected.max(1), rtol=1e-6)


def test_batches_are_joined_in_their_order_with_names_and_extras():
    parts = []
    for n in (2, 3):
        one, other = reading(n, n), reading(n, 10 + n)
        parts.append(Prediction(one, {"other": other}, {"conflict": torch.full((n,), float(n))}))
    whole = Prediction.joined(parts)
    assert torch.equal(whole.main.probabilities, torch.cat([p.main.probabilities for p in parts]))
    assert torch.equal(
        whole.readings["other"].uncertainty,
        torch.cat([p.readings["other"].uncertainty for p in parts]),
    )
    assert whole.extras["conflict"].tolist() == [2, 2, 3, 3, 3]


def test_the_file_holds_fp32_probabilities_and_fp64_uncertainty():
    extras = {"conflict": torch.zeros(4, dtype=torch.float64), "half": torch.zeros(4).bfloat16()}
    prediction = Prediction(reading(4, dtype=torch.float64), {"plain": reading(4)}, extras)
    arrays = Prediction.joined([prediction]).arrays()
    assert {name: str(array.dtype) for name, array in arrays.items()} == {
        "probabilities": "float32",
        "uncertainty": "float64",
        "energy": "float64",
        "plain/probabilities": "float32",
        "plain/uncertainty": "float64",
        "conflict": "float64",
        "half": "float32",
        "prediction": "int64",
    }


def test_no_batch_at_all_is_refused():
    with pytest.raises(ValueError, match="the split holds no image"):
        Prediction.joined([])


def test_every_reading_is_measured_once_on_the_whole_and_on_each_part(monkeypatch):
    counted = []

    def count(probabilities, labels, uncertainty):
        counted.append(len(labels))
        return {"n": len(labels)}

    monkeypatch.setattr(evaluation, "classification_metrics", count)
    parts = [{"a": reading(n, n), "b": reading(n, n + 10)} for n in (2, 3)]
    whole = Prediction.joined([Prediction(named["a"], named) for named in parts])
    evaluated = Evaluated(whole, torch.zeros(5, dtype=torch.int64), ())
    rows = torch.tensor([True, True, False, False, False])
    record = evaluation.metrics_record(evaluated, {"base": rows})
    assert sorted(counted) == [2, 2, 5, 5]  # two readings, not three
    assert record == {
        "metrics": {"n": 5},
        "variants": {"a": {"n": 5}, "b": {"n": 5}},
        "parts": {"base": {"n": 2}},
        "variant_parts": {"a": {"base": {"n": 2}}, "b": {"base": {"n": 2}}},
        "members": {},
    }


def test_the_members_of_an_ensemble_are_joined_kept_once_and_measured_one_by_one():
    parts = []
    for n, seed in ((2, 0), (3, 1)):
        logits = torch.randn(n, 4, 3, generator=torch.Generator().manual_seed(seed))
        members = Reading(logits.softmax(-1), torch.rand(n, 4).double())
        parts.append(Prediction(reading(n), members={"template": members}))
    whole = Prediction.joined(parts)
    probabilities = torch.cat([part.members["template"].probabilities for part in parts])
    arrays = whole.arrays()
    assert set(arrays) == {
        "probabilities",
        "uncertainty",
        "energy",
        "template_probabilities",
        "template_uncertainty",
        "prediction",
    }
    np.testing.assert_array_equal(arrays["template_probabilities"], probabilities)
    assert arrays["template_uncertainty"].shape == (5, 4)
    labels = torch.tensor([0, 1, 2, 0, 1])
    record = evaluation.metrics_record(Evaluated(whole, labels, ()), {})
    right = (probabilities.argmax(-1) == labels[:, None]).float().mean(0)
    found = [metrics["accuracy"] for metrics in record["members"]["template"]]
    np.testing.assert_allclose(found, 100 * right, rtol=1e-5)


@pytest.fixture
def certain(make_trainer, tmp_path):
    """CDC with eight templates, told evidence of about e^20 for every test image; its folder.

    Half of the images are answered wrongly: the less certain half.
    """
    settings = {"N_TEMPLATES": 8, "DISCOUNT": 1.0, "EVIDENCE_OFFSET": "training"}
    options = [part for key, value in settings.items() for part in (f"TRAINER.CDC.{key}", value)]
    trainer = make_trainer("CDC", tmp_path, *options)
    labels = torch.tensor([item.label for item in trainer.dm.dataset.test])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    answered = torch.where(order < len(labels) // 2, (labels + 1) % 5, labels)
    strength = 18 + 6 * order / len(labels)  # log of the evidence; grows with the order
    seen = SimpleNamespace(rows=0)

    def logits(images, text=None):
        rows = slice(seen.rows, seen.rows + len(images))
        seen.rows += len(images)
        opinions = torch.zeros(len(images), 5)
        opinions[torch.arange(len(images)), answered[rows]] = strength[rows]
        return opinions.unsqueeze(1).expand(-1, 8, -1)

    trainer.logits = logits
    trainer.test()
    return tmp_path, order.numpy(), (answered == labels).numpy()


def test_the_order_of_very_certain_images_survives_into_the_file(certain):
    folder, order, _ = certain
    with np.load(folder / "predictions.npz") as file:
        found = {name: file[name] for name in ("uncertainty", "dempster/uncertainty")}
        templates = file["template_uncertainty"]
        conflict = file["conflict"]
    by_certainty = np.argsort(order)[::-1]
    for name, uncertainty in found.items():
        assert 0 < uncertainty.min() and uncertainty.max() < 1e-45, name  # fp32 ends at 1.4e-45
        assert (np.diff(uncertainty[by_certainty]) > 0).all(), name
    assert (np.diff(templates[by_certainty, 0]) > 0).all()
    assert (np.diff(conflict[by_certainty]) > 0).all()


def test_the_risk_coverage_curve_of_very_certain_images_goes_by_their_order(certain):
    folder, order, right = certain
    wrong = 1 - right[np.argsort(order)[::-1]]  # the most certain first
    expected = np.mean([wrong[: i + 1].mean() for i in range(len(wrong))])
    record = json.loads((folder / "results.json").read_text())
    assert record["metrics"]["aurc"] == pytest.approx(expected, rel=1e-9)
    assert record["variants"]["dempster"]["aurc"] == pytest.approx(expected, rel=1e-9)


def test_tensorboard_gets_what_dassls_evaluator_does_not_write_there():
    own = {"accuracy": 80.0, "ece": 5.0, "nll": 0.5, "brier": 0.2, "aurc": 0.1, "n": 10}
    record = {"metrics": own, "variants": {"dempster": {"accuracy": 70.0, "ece": 9.0}}}
    assert evaluation._scalars(record) == {
        "ece": 5.0,
        "nll": 0.5,
        "brier": 0.2,
        "aurc": 0.1,
        "dempster/accuracy": 70.0,
    }
