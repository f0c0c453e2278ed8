"""CLIP_ICM and LinearProbe through Dassl: on digits in domains, with a small random CLIP."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from outputs import results
from sklearn.linear_model import LogisticRegression

from causalclip.clip.backbone import load_clip
from causalclip.icm.subspace import InvariantProjection

DOMAINS = ["DATASET.SOURCE_DOMAINS", ["ink", "chalk"], "DATASET.TARGET_DOMAINS", ["neon"]]
FEW = [*DOMAINS, "DATASET.NUM_SHOTS", 8, "TRAINER.CLIP_ICM.DRAWS", 1]
BEST = ["TRAINER.CLIP_ICM.RULE", "best", "TRAINER.CLIP_ICM.SELECT_MARGIN", 0.0]
READINGS = {"zeroshot", "zeroshot_icm", "linear_probe", "linear_probe_icm"}


@pytest.fixture
def make_trainer(make_trainer, small_clip):
    """As everywhere, but on the small CLIP."""

    def make(name, folder, *options):
        return make_trainer(name, folder, "MODEL.BACKBONE.NAME", small_clip, *options)

    return make


def keyed(options: list) -> list:
    """The full keys of KEY, VALUE, ... below TRAINER.CLIP_ICM."""
    return [f"TRAINER.CLIP_ICM.{v}" if i % 2 == 0 else v for i, v in enumerate(options)]


def run(make_trainer, folder, *options, name="CLIP_ICM"):
    trainer = make_trainer(name, folder, *FEW, *options)
    trainer.train()
    return trainer


# A run


def test_a_run_reports_four_readings_the_choice_and_the_whole_grid(make_trainer, tmp_path):
    trainer = run(make_trainer, tmp_path, *BEST)
    record = results(tmp_path)
    assert set(record["variants"]) == READINGS
    assert record["metrics"] == record["variants"]["zeroshot_icm"]
    assert record["parts"]["heldout"]["n"] < record["metrics"]["n"]
    details = record["details"]
    assert details["folds"] == ["ink", "chalk"]
    settings = trainer.settings
    dims = len({round(share * 32) for share in settings.GRID_DIMS})
    cells = dims * (len(settings.GRID_LAMS) + len(settings.GRID_EPS))
    for head in ("zeroshot", "linear_probe"):
        described = details["heads"][head]
        assert len(described["grid"]) == cells
        assert described["source_accuracy"] == max(cell["mean"] for cell in described["grid"])
        assert {len(cell["accuracies"]) for cell in described["grid"]} == {2}
        assert 0 <= described["intervention_energy_kept"] <= 1
    assert record["training"]["images"] == 2 * 5 * 8


def test_the_target_has_no_say_in_the_choice(make_trainer, tmp_path):
    run(make_trainer, tmp_path / "a")
    run(make_trainer, tmp_path / "b", "DATASET.TARGET_DOMAINS", ["noisy_paper"])
    one, other = (results(tmp_path / name)["details"] for name in "ab")
    assert one == other


def test_nothing_is_encoded_twice_in_a_sweep(make_trainer, tmp_path, encoded):
    run(make_trainer, tmp_path / "a", "SEED", 77)
    assert encoded[0] > 0
    before = encoded[0]
    run(make_trainer, tmp_path / "b", "SEED", 77, "TRAINER.CLIP_ICM.GRID_EPS", [0.5])
    run(make_trainer, tmp_path / "c", "SEED", 77, "TRAINER.CLIP_ICM.C", 10.0)
    assert encoded[0] == before


def test_readings_are_those_of_the_written_projection_and_of_scikit_learn(make_trainer, tmp_path):
    trainer = run(make_trainer, tmp_path)
    arrays = np.load(tmp_path / "predictions.npz")
    features, _ = trainer.encoder.labelled(trainer.dm.dataset.test)
    basis = InvariantProjection.load(tmp_path / "projection.safetensors").basis.float()
    inside, text = features @ basis, trainer.text @ basis
    cosine = torch.nn.functional.cosine_similarity(inside[:, None], text[None], dim=-1)
    expected = (trainer.backbone.logit_scale * cosine).softmax(-1)
    np.testing.assert_allclose(arrays["zeroshot_icm/probabilities"], expected, atol=1e-4)

    x, y = trainer.encoder.labelled(trainer.dm.dataset.train_x)
    model = LogisticRegression(C=0.316, max_iter=1000).fit(x.numpy(), y.numpy())
    expected = model.predict_proba(features.numpy())
    np.testing.assert_allclose(arrays["linear_probe/probabilities"], expected, atol=1e-3)


def test_the_published_codes_arithmetic_with_its_end_of_the_spectrum(make_trainer, tmp_path):
    """KEEP reference, raw features, no norms: zero-shot and probe as the code computes them."""
    lam, k = 1000.0, 12
    options = ["SELECT", "fixed", "ESTIMATOR", "difference", "LAM", lam, "DIM_INV", k]
    options += ["KEEP", "reference", "NORMALIZE", False, "NORMALIZE_PROJECTED", False]
    options += ["INTERVENTIONS", "IMAGE"]
    trainer = run(make_trainer, tmp_path, *keyed(options))
    groups, encode = trainer.sources.groups, trainer.encoder.features
    z = torch.cat([torch.from_numpy(np.array(encode(g.paths))) for g in groups])
    z_do = torch.cat([torch.from_numpy(trainer.sources.changed(g)[0]) for g in groups])

    # The slow transcription (clip_icm.py and engine.py of the published repository).
    z, z_do = z.double(), z_do.double()
    delta = z - z_do
    m = z.T @ z / len(z) - lam * delta.T @ delta / len(delta)
    a_inv = torch.linalg.eigh(m).eigenvectors[:, :k]
    images = torch.from_numpy(np.array(trainer.encoder.items(trainer.dm.dataset.test))).double()
    text = trainer.text.double() / trainer.text.double().norm(dim=-1, keepdim=True)
    similarity = (100.0 * (images @ a_inv) @ (text @ a_inv).T).softmax(dim=-1)
    labels = torch.tensor([sample.label for g in groups for sample in g.samples])
    probe = LogisticRegression(C=0.316, max_iter=1000).fit((z @ a_inv).numpy(), labels.numpy())

    arrays = np.load(tmp_path / "predictions.npz")
    predicted = arrays["zeroshot_icm/probabilities"].argmax(1)
    np.testing.assert_array_equal(predicted, similarity.argmax(1))
    predicted = arrays["linear_probe_icm/probabilities"].argmax(1)
    expected = probe.predict((images @ a_inv).numpy())
    assert (predicted == expected).mean() > 0.99  # L-BFGS stops at another sign of the basis


# Pairs


def caption_file(folder, trainer, rows: int = 12):
    items = trainer.dm.dataset.train_x[:rows]
    captions = [
        {
            "image": trainer.encoder.key_of(item.impath),
            "caption": f"the digit {item.classname}",
            "rewrites": [f"{style} of the digit {item.classname}" for style in "a b c d".split()],
        }
        for item in items
    ]
    path = folder / "captions.json"
    path.write_text(json.dumps(captions))
    return path, captions


def test_captions_of_the_sources_take_the_place_of_the_grid(make_trainer, tmp_path):
    path, _ = caption_file(tmp_path, make_trainer("CLIP_ICM", tmp_path, *FEW))
    run(
        make_trainer,
        tmp_path / "run",
        *["TRAINER.CLIP_ICM.INTERVENTIONS", "BOTH", "TRAINER.CLIP_ICM.CAPTIONS", str(path)],
    )
    assert results(tmp_path / "run")["details"]["pairs"] == 80 + 12 * 4


# Checkpoints


def test_a_loaded_fit_gives_the_same_predictions(make_trainer, tmp_path):
    run(make_trainer, tmp_path / "fit")
    loaded = make_trainer("CLIP_ICM", tmp_path / "loaded", *FEW)
    loaded.load_model(str(tmp_path / "fit"))
    loaded.test()
    one, other = (np.load(tmp_path / name / "predictions.npz") for name in ("fit", "loaded"))
    for key in one.files:
        np.testing.assert_array_equal(one[key], other[key])
    assert results(tmp_path / "loaded")["details"] == results(tmp_path / "fit")["details"]


def test_a_finished_fit_is_reused_and_one_of_other_settings_replaced(
    make_trainer, tmp_path, capsys
):
    run(make_trainer, tmp_path)
    capsys.readouterr()
    cost = results(tmp_path)["training"]
    run(make_trainer, tmp_path)
    assert results(tmp_path)["training"] == cost  # the first run's
    assert "Fitted before with the same settings" in capsys.readouterr().out
    run(make_trainer, tmp_path, "TRAINER.CLIP_ICM.GRID_EPS", [0.5])
    assert "other settings, fitting again" in capsys.readouterr().out
    assert results(tmp_path)["training"] != cost


def test_open_classes_are_classified_by_name_and_reported_apart(make_trainer, tmp_path):
    run(make_trainer, tmp_path / "base")
    options = [*FEW, "DATASET.SUBSAMPLE_CLASSES", "all"]
    trainer = make_trainer("CLIP_ICM", tmp_path / "all", *options)
    trainer.load_model(str(tmp_path / "base"))
    trainer.test()
    record = results(tmp_path / "all")
    assert set(record["variants"]) == {"zeroshot", "zeroshot_icm"}
    assert record["parts"]["base"]["n"] + record["parts"]["open"]["n"] == record["metrics"]["n"]
    assert len(record["classnames"]) == 10 and len(record["trained_on"]["classnames"]) == 5


@pytest.mark.parametrize("select_new", ["classes", "combined"])
def test_new_classes_have_a_subspace_of_their_own(select_new, make_trainer, tmp_path):
    own = keyed(["SELECT", "images", "SELECT_NEW", select_new, "SELECT_MARGIN", 0.0])
    run(make_trainer, tmp_path / "base", *own)
    files = {"known": "projection", "new": "projection_new_classes"}
    load = InvariantProjection.load
    bases = {k: load(tmp_path / "base" / f"{v}.safetensors").basis for k, v in files.items()}

    def cosines(trainer, basis=None):
        z, text = trainer.encoder.labelled(trainer.dm.dataset.test)[0], trainer.text
        if basis is not None:
            z, text = z @ basis.float(), text @ basis.float()
        cosine = torch.nn.functional.cosine_similarity(z[:, None], text[None], dim=-1)
        return (trainer.backbone.logit_scale * cosine).detach()

    found = {}
    for half in ("base", "new", "all"):
        options = [*FEW, *own, "DATASET.SUBSAMPLE_CLASSES", half]
        trainer = make_trainer("CLIP_ICM", tmp_path / f"test {half}", *options)
        trainer.load_model(str(tmp_path / "base"))
        trainer.test()
        arrays = np.load(tmp_path / f"test {half}" / "predictions.npz")
        plain, known, new = (cosines(trainer, b) for b in (None, bases["known"], bases["new"]))
        if select_new == "combined":
            new = (plain + known + new) / 3
        answers = torch.from_numpy(arrays["zeroshot_icm/probabilities"])
        found[half] = answers, plain.softmax(-1), known, new
    answers, _, known, _ = found["base"]
    torch.testing.assert_close(answers, known.softmax(-1), atol=1e-4, rtol=0)
    answers, _, _, new = found["new"]
    torch.testing.assert_close(answers, new.softmax(-1), atol=1e-4, rtol=0)
    answers, plain, known, new = found["all"]
    for classes, logits in ((slice(0, 5), known), (slice(5, 10), new)):
        mass, inside = plain[:, classes].sum(-1, keepdim=True), logits[:, classes].softmax(-1)
        torch.testing.assert_close(answers[:, classes], mass * inside, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("LinearProbe", ["TRAINER.LINEARPROBE.C", 0.3]),
        ("CLIP_ICM", ["TRAINER.CLIP_ICM.HEAD", "linear_probe"]),
    ],
)
def test_a_probe_refuses_classes_it_does_not_know(name, options, make_trainer, tmp_path):
    run(make_trainer, tmp_path / "base", *options, name=name)
    options = [*FEW, *options, "DATASET.SUBSAMPLE_CLASSES", "new"]
    trainer = make_trainer(name, tmp_path / "new", *options)
    with pytest.raises(ValueError, match=r"knows only its 5 classes .*zero.*this run has 5 \(five"):
        trainer.load_model(str(tmp_path / "base"))


def test_other_methods_classify_inside_the_written_projection(make_trainer, tmp_path):
    run(make_trainer, tmp_path / "icm")
    projection = str(tmp_path / "icm" / "projection.safetensors")
    options = [*FEW, "TRAINER.ZEROSHOTCLIP.PROJECTION", projection]
    make_trainer("ZeroshotCLIP", tmp_path / "zeroshot", *options).train()
    inside = np.load(tmp_path / "icm" / "predictions.npz")["zeroshot_icm/probabilities"]
    other = np.load(tmp_path / "zeroshot" / "predictions.npz")["probabilities"]
    np.testing.assert_allclose(other, inside, atol=1e-5)


# The linear probe


def test_the_linear_probe_chooses_c_on_validation_and_writes_the_sweep(make_trainer, tmp_path):
    trainer = run(make_trainer, tmp_path, name="LinearProbe")
    details = results(tmp_path)["details"]
    grid = trainer.settings.GRID
    assert [row["c"] for row in details["sweep"]][: len(grid)] == grid
    assert details["c"] in [row["c"] for row in details["sweep"]]


# Wrong settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["TWINS", True], "TRAINER.CLIP_ICM.TWINS needs a data set with exact twins"),
        ([], "10 images and 1 intervention each give 10 pairs for 32 .* TRAINER.CLIP_ICM.DRAWS 0"),
    ],
)
def test_what_the_data_cannot_fulfil_is_refused_before_anything_is_encoded(
    options, message, make_trainer, tmp_path, encoded
):
    few = [*FEW, "DATASET.NUM_SHOTS", 1]
    trainer = make_trainer("CLIP_ICM", tmp_path, *few, *keyed(options))
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert encoded[0] == 0


def test_weights_that_give_nan_name_the_image(make_trainer, tmp_path, small_clip, monkeypatch):
    trainer = make_trainer("CLIP_ICM", tmp_path, *FEW, "FEATURE_CACHE", False)
    broken = load_clip(small_clip)
    broken.visual.proj.data.fill_(torch.nan)
    monkeypatch.setattr(trainer, "backbone", replace(trainer.backbone, model=broken))
    with pytest.raises(ValueError, match=r"NaN or infinity for .* the first: .*ink.*\.png"):
        trainer.train()
