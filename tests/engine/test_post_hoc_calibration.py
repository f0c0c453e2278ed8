"""Temperature scaling and DAC for softmax prompt methods, with TEST.CALIBRATION."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from outputs import arrays_of, results
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from causalclip.clip.zeroshot import class_features
from causalclip.data.catalogue import dataset_template
from causalclip.engine.calibration import class_factors, fit_temperature

ON = ["TEST.CALIBRATION", True]
NEW = ["DATASET.SUBSAMPLE_CLASSES", "new"]
READINGS = {"temperature", "dac", "dac_temperature"}


@pytest.fixture
def evaluate(make_trainer, tmp_path):
    """A function (name, model folder, *options) -> (trainer, record, arrays) of an evaluation."""

    def run(name, model_folder, *options):
        trainer = make_trainer(name, tmp_path, *options)
        trainer.load_model(str(model_folder))
        trainer.test()
        return trainer, results(tmp_path), arrays_of(tmp_path)

    return run


def scaled(probabilities, factor):
    """softmax(factor * logits) from softmax(logits), in NumPy."""
    exponents = factor * np.log(probabilities.astype(np.float64))
    exponents = np.exp(exponents - exponents.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


# -- in general ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CoOp", "MaPLe", "KgCoOp", "PromptSRC", "IVLP"])
def test_methods_that_learn_texts_have_all_three_readings(name, trained):
    _, folder = trained(name, *ON)
    record, found = results(folder), arrays_of(folder)
    assert set(record["variants"]) == READINGS
    for reading in READINGS:  # none of them changes what is predicted
        answered = found[f"{reading}/probabilities"].argmax(-1)
        np.testing.assert_array_equal(answered, found["prediction"])


@pytest.mark.parametrize("name", ["CoCoOp", "VPT", "CLIP_Adapter"])
def test_texts_that_do_not_learn_or_depend_on_the_image_have_no_distances(name, trained):
    _, folder = trained(name, *ON)
    record = results(folder)
    assert set(record["variants"]) == {"temperature"}


def test_calibration_moves_no_learned_number_and_no_figure(trained):
    (plain, one), (calibrated, other) = trained("CoOp"), trained("CoOp", *ON)
    assert torch.equal(plain.model.ctx, calibrated.model.ctx)
    assert "temperature" not in plain.model.state_dict()
    np.testing.assert_array_equal(
        arrays_of(one)["probabilities"], arrays_of(other)["probabilities"]
    )
    assert results(one)["variants"] == {}


def test_cdc_keeps_to_its_own_discount(trained):
    trainer, folder = trained("CDC", *ON)
    record = results(folder)
    assert not READINGS & set(record["variants"])
    assert "temperature" not in trainer.model.state_dict()


# -- temperature ---------------------------------------------------------------------------------


def test_the_temperature_is_the_likeliest_of_the_validation_split(trained):
    trainer, folder = trained("CoOp", *ON)
    with torch.no_grad():
        pairs = [trainer.parse_batch_test(batch) for batch in trainer.val_loader]
        logits = torch.cat([trainer.logits(images) for images, _ in pairs]).double().numpy()
    labels = torch.cat([label for _, label in pairs]).numpy()

    def nll(t):
        exponents = logits / t - (logits / t).max(-1, keepdims=True)
        return np.mean(np.log(np.exp(exponents).sum(-1)) - exponents[range(len(labels)), labels])

    best = minimize_scalar(nll, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-6}).x
    temperature = trainer.model.temperature.item()
    assert temperature == pytest.approx(best, rel=1e-2)
    found = arrays_of(folder)
    expected = scaled(found["probabilities"], 1 / temperature)
    np.testing.assert_allclose(found["temperature/probabilities"], expected, atol=1e-4)


def test_a_temperature_travels_with_the_checkpoint_to_other_classes(trained, evaluate):
    trainer, folder = trained("CoOp", *ON)
    loaded, record, found = evaluate("CoOp", folder, *ON, *NEW)
    assert loaded.model.temperature.item() == trainer.model.temperature.item()
    assert set(record["variants"]) == READINGS
    answered = found["dac_temperature/probabilities"].argmax(-1)
    np.testing.assert_array_equal(answered, found["prediction"])


def test_a_checkpoint_without_a_temperature_still_loads(trained, evaluate, capsys):
    _, folder = trained("CoOp")
    _, record, _ = evaluate("CoOp", folder, *ON, *NEW)
    assert set(record["variants"]) == {"dac"}
    assert "no temperature in this model" in capsys.readouterr().out


def test_a_checkpoint_with_a_temperature_loads_where_none_is_asked_for(trained, evaluate):
    _, folder = trained("CoOp", *ON)
    loaded, record, _ = evaluate("CoOp", folder, *NEW)
    assert record["variants"] == {}
    assert "temperature" not in loaded.model.state_dict()


def test_a_run_without_a_validation_split_has_no_temperature(make_trainer, tmp_path, capsys):
    trainer = make_trainer("CoOp", tmp_path, *ON)
    trainer.val_loader = None
    trainer.train()
    record = results(tmp_path)
    assert set(record["variants"]) == {"dac"}
    assert "No validation split to fit the temperature on" in capsys.readouterr().out


# -- DAC -----------------------------------------------------------------------------------------


def test_trained_classes_are_left_as_they_are(trained):
    _, folder = trained("CoOp", *ON)
    found = arrays_of(folder)
    np.testing.assert_array_equal(found["dac/probabilities"], found["probabilities"])


def test_new_classes_are_scaled_by_how_far_tuning_has_moved_them(
    trained, evaluate, make_trainer, tmp_path
):
    base, folder = trained("CoOp", *ON)
    new, _, found = evaluate("CoOp", folder, *ON, *NEW)
    template = [dataset_template(new.cfg)]

    def unit(features):
        return (features / features.norm(dim=-1, keepdim=True)).double().detach().numpy()

    before = [unit(class_features(new.clip, t.classnames, template)) for t in (base, new)]
    after = [unit(t.text_features(t.model())) for t in (base, new)]

    def score(features, others):  # exp of minus the mean distance to the five trained classes
        return np.exp(-np.linalg.norm(features[:, None] - others[None], axis=-1).mean(-1))

    factors = score(after[1], after[0]) / score(before[1], before[0])
    assert np.abs(factors - 1).max() > 1e-3
    expected = scaled(found["probabilities"], factors[found["prediction"]][:, None])
    np.testing.assert_allclose(found["dac/probabilities"], expected, atol=1e-4)


def test_without_the_names_of_the_trained_classes_there_is_no_dac(trained, make_trainer, tmp_path):
    _, folder = trained("CoOp", *ON)
    trainer = make_trainer("CoOp", tmp_path, *ON, *NEW)
    trainer.load_model(str(folder))
    trainer.checkpointer.trained_on = (
        None  # as of a checkpoint of another code base, without a results.json
    )
    trainer.test()
    record = results(tmp_path)
    assert set(record["variants"]) == {"temperature"}


# -- the formulas --------------------------------------------------------------------------------


def drawn(
    temperature: float, n: int = 20_000, classes: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose labels follow softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
    return logits, labels.squeeze(-1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature):
    # The standard error of 20,000 samples is below 2 %.
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.06)


def test_what_gives_no_temperature_is_refused():
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(torch.full((2, 3), math.nan), torch.zeros(2))


def slow_factors(base_zs, zs, base_ft, ft, k):
    """DAC's definition, class by class and neighbour by neighbour (section 5 of the paper)."""
    found = []
    for i in range(len(zs)):
        tuned = sorted(float(np.sqrt(((ft[i] - other) ** 2).sum())) for other in base_ft)[:k]
        plain = sorted(float(np.sqrt(((zs[i] - other) ** 2).sum())) for other in base_zs)[:k]
        ratio = math.exp(-sum(tuned) / k) / math.exp(-sum(plain) / k)
        found.append(1.0 if tuned[0] < 0.05 else ratio)
    return found


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_factors_are_those_of_the_definition(k):
    base_zs, zs, base_ft = unit(5, 8, seed=1), unit(4, 8, seed=2), unit(5, 8, seed=3)
    ft = torch.cat([unit(3, 8, seed=4), base_ft[2:3]])  # the last one is a trained class
    factors = class_factors(base_zs, zs, base_ft, ft, neighbours=k)
    expected = slow_factors(base_zs.numpy(), zs.numpy(), base_ft.numpy(), ft.numpy(), k)
    assert factors.tolist() == pytest.approx(expected, rel=1e-12)
    assert factors[-1] == 1 and (factors[:3] != 1).all()
