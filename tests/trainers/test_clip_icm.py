"""CLIP_ICM and LinearProbe through Dassl: on digits in domains, with a small random CLIP."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from causalclip.clip.backbone import build_clip, load_clip, save_tiny
from causalclip.icm.subspace import InvariantProjection

DOMAINS = ["DATASET.SOURCE_DOMAINS", ["ink", "chalk"], "DATASET.TARGET_DOMAINS", ["neon"]]
FEW = [*DOMAINS, "DATASET.NUM_SHOTS", 8, "TRAINER.CLIP_ICM.DRAWS", 1]
BEST = ["TRAINER.CLIP_ICM.RULE", "best", "TRAINER.CLIP_ICM.SELECT_MARGIN", 0.0]
READINGS = {"zeroshot", "zeroshot_icm", "linear_probe", "linear_probe_icm"}


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory) -> str:
    """A CLIP of 32-d features, so that few images are pairs enough."""
    path = tmp_path_factory.mktemp("clip") / "small.safetensors"
    save_tiny(build_clip(vision_layers=2, transformer_layers=2, embed_dim=32), [], path)
    return str(path)


@pytest.fixture
def make_trainer(make_trainer, small_clip):
    """As everywhere, but on the small CLIP."""

    def make(name, folder, *options):
        return make_trainer(name, folder, "MODEL.BACKBONE.NAME", small_clip, *options)

    return make


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def run(make_trainer, folder, *options, name="CLIP_ICM"):
    trainer = make_trainer(name, folder, *FEW, *options)
    trainer.train()
    return trainer


@pytest.fixture
def encoded(monkeypatch):
    """The number of images that went through the tower, so far."""
    import causalclip.engine.base as base

    count = [0]
    encode = base.encode_image

    def counting(model, images):
        count[0] += len(images)
        return encode(model, images)

    monkeypatch.setattr(base, "encode_image", counting)
    return count


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


def test_by_default_plain_features_stay_as_they_are_unless_the_gain_exceeds_its_error(
    make_trainer, tmp_path
):
    run(make_trainer, tmp_path)
    record = results(tmp_path)
    arrays = np.load(tmp_path / "predictions.npz")
    for head, described in record["details"]["heads"].items():
        gain, kept = described["gain"], described["choice"]["dim_inv"]
        if kept < 32:
            assert gain["points"] > gain["standard_error"]
        else:
            plain, inside = (arrays[f"{head}{end}/probabilities"] for end in ("", "_icm"))
            np.testing.assert_allclose(inside, plain, atol=1e-4)


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
    features, _ = trainer.labelled(trainer.dm.dataset.test)
    basis = InvariantProjection.load(tmp_path / "projection.safetensors").basis.float()
    inside, text = features @ basis, trainer.text @ basis
    cosine = torch.nn.functional.cosine_similarity(inside[:, None], text[None], dim=-1)
    expected = (trainer.logit_scale * cosine).softmax(-1)
    np.testing.assert_allclose(arrays["zeroshot_icm/probabilities"], expected, atol=1e-4)

    x, y = trainer.labelled(trainer.dm.dataset.train_x)
    model = LogisticRegression(C=0.316, max_iter=1000).fit(x.numpy(), y.numpy())
    expected = model.predict_proba(features.numpy())
    np.testing.assert_allclose(arrays["linear_probe/probabilities"], expected, atol=1e-3)


def test_the_published_codes_arithmetic_with_its_end_of_the_spectrum(make_trainer, tmp_path):
    """KEEP reference, raw features, no norms: zero-shot and probe as the code computes them."""
    lam, k = 1000.0, 12
    options = ["SELECT", "fixed", "ESTIMATOR", "difference", "LAM", lam, "DIM_INV", k]
    options += ["KEEP", "reference", "NORMALIZE", False, "NORMALIZE_PROJECTED", False]
    options += ["INTERVENTIONS", "IMAGE"]
    keys = [f"TRAINER.CLIP_ICM.{v}" if i % 2 == 0 else v for i, v in enumerate(options)]
    trainer = run(make_trainer, tmp_path, *keys)
    groups, encode = trainer.sources.groups, trainer.encoder.features
    z = torch.cat([torch.from_numpy(np.array(encode(g.paths))) for g in groups])
    z_do = torch.cat([torch.from_numpy(trainer.sources.pairs.changed(g)[0]) for g in groups])

    # The slow transcription (clip_icm.py and engine.py of the published repository).
    z, z_do = z.double(), z_do.double()
    delta = z - z_do
    m = z.T @ z / len(z) - lam * delta.T @ delta / len(delta)
    a_inv = torch.linalg.eigh(m).eigenvectors[:, :k]
    images = torch.from_numpy(np.array(trainer.features(trainer.dm.dataset.test))).double()
    text = trainer.text.double() / trainer.text.double().norm(dim=-1, keepdim=True)
    similarity = (100.0 * (images @ a_inv) @ (text @ a_inv).T).softmax(dim=-1)
    labels = torch.tensor([label for g in groups for label in g.labels])
    probe = LogisticRegression(C=0.316, max_iter=1000).fit((z @ a_inv).numpy(), labels.numpy())

    arrays = np.load(tmp_path / "predictions.npz")
    predicted = arrays["zeroshot_icm/probabilities"].argmax(1)
    np.testing.assert_array_equal(predicted, similarity.argmax(1))
    predicted = arrays["linear_probe_icm/probabilities"].argmax(1)
    expected = probe.predict((images @ a_inv).numpy())
    assert (predicted == expected).mean() > 0.99  # L-BFGS stops at another sign of the basis


# Pairs


def test_one_source_domain_holds_out_kinds_of_intervention(make_trainer, tmp_path):
    run(make_trainer, tmp_path, "DATASET.SOURCE_DOMAINS", ["ink"], "TRAINER.CLIP_ICM.DRAWS", 0)
    details = results(tmp_path)["details"]
    assert details["folds"] == ["jitter+grayscale", "blur+posterize", "invert+solarize+equalize"]
    assert len(details["heads"]["zeroshot"]["grid"][0]["accuracies"]) == 3


@pytest.mark.parametrize("kind", ["TEXT", "BOTH"])
def test_text_pairs_alone_or_with_images(kind, make_trainer, tmp_path):
    run(make_trainer, tmp_path / "image")
    run(make_trainer, tmp_path, "TRAINER.CLIP_ICM.INTERVENTIONS", kind)
    details = results(tmp_path)["details"]
    images = results(tmp_path / "image")["details"]
    assert details["pairs"] != images["pairs"]
    spectra = [d["heads"]["zeroshot"]["spectrum"] for d in (details, images)]
    assert spectra[0] != spectra[1]


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


def test_captions_for_unknown_images_are_refused(make_trainer, tmp_path):
    path, captions = caption_file(tmp_path, make_trainer("CLIP_ICM", tmp_path, *FEW))
    captions[3]["image"] = "nowhere/1.png"
    path.write_text(json.dumps(captions))
    options = ["TRAINER.CLIP_ICM.INTERVENTIONS", "TEXT", "TRAINER.CLIP_ICM.CAPTIONS", str(path)]
    with pytest.raises(ValueError, match="got 1 unknown ones, the first: nowhere/1.png"):
        run(make_trainer, tmp_path / "run", *options)


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
    assert run(make_trainer, tmp_path).training_cost is None
    assert "Fitted before with the same settings" in capsys.readouterr().out
    again = run(make_trainer, tmp_path, "TRAINER.CLIP_ICM.GRID_EPS", [0.5])
    assert "other settings, fitting again" in capsys.readouterr().out
    assert again.training_cost is not None


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


def test_open_classes_of_a_method_that_learns_nothing_are_reported_too(make_trainer, tmp_path):
    make_trainer("ZeroshotCLIP", tmp_path / "base", *FEW).train()
    trainer = make_trainer(
        "ZeroshotCLIP", tmp_path / "all", *FEW, "DATASET.SUBSAMPLE_CLASSES", "all"
    )
    trainer.load_model(str(tmp_path / "base"))
    trainer.test()
    assert {"base", "open"} <= set(results(tmp_path / "all")["parts"])


@pytest.mark.parametrize(
    ("name", "options"),
    [("LinearProbe", []), ("CLIP_ICM", ["TRAINER.CLIP_ICM.HEAD", "linear_probe"])],
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
    options = [*FEW, "TRAINER.CDC.PROJECTION", projection, "TRAINER.ZEROSHOTCLIP.PROJECTION"]
    make_trainer("ZeroshotCLIP", tmp_path / "zeroshot", *options, projection).train()
    inside = np.load(tmp_path / "icm" / "predictions.npz")["zeroshot_icm/probabilities"]
    other = np.load(tmp_path / "zeroshot" / "predictions.npz")["probabilities"]
    np.testing.assert_allclose(other, inside, atol=1e-5)
    make_trainer("CDC", tmp_path / "cdc", *options, projection).train()
    assert results(tmp_path / "cdc")["metrics"]["n"] > 0


# The linear probe


def test_the_linear_probe_chooses_c_on_validation_and_writes_the_sweep(make_trainer, tmp_path):
    trainer = run(make_trainer, tmp_path, name="LinearProbe")
    details = results(tmp_path)["details"]
    grid = trainer.settings.GRID
    assert [row["c"] for row in details["sweep"]][: len(grid)] == grid
    assert details["c"] in [row["c"] for row in details["sweep"]]


def test_a_given_c_needs_no_validation(make_trainer, tmp_path):
    run(make_trainer, tmp_path, "TRAINER.LINEARPROBE.C", 0.5, name="LinearProbe")
    assert results(tmp_path)["details"] == {"c": 0.5, "sweep": []}


# Wrong settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["INTERVENTIONS", "AUDIO"],
            "INTERVENTIONS must be one of IMAGE, TEXT, BOTH, CROSS, FIGURE, got 'AUDIO'",
        ),
        (["SELECT", "target"], "SELECT must be one of lodo, fixed, got 'target'"),
        (["KEEP", "smallest"], "KEEP must be one of invariant, reference, got 'smallest'"),
        (["GRID_ESTIMATORS", ["ratio"]], r"each one of difference, generalized, got \['ratio'\]"),
        (["DRAWS", -1], r"DRAWS must be an int in \[0, 10000\], got -1"),
        (["GRID_DIMS", [0.5, 1.5]], r"GRID_DIMS must be a list .* in \(0, 1\], got \[0.5, 1.5\]"),
        (["HEAD", "linear_probe", "PROBE", False], "HEAD linear_probe needs PROBE True"),
        (["TWINS", True], "TWINS needs a data set with exact twins .*HandwrittenDigits has none"),
        (["SELECT", "fixed"], r"DIM_INV must be in \[1, 32\], got 0"),
        (["SELECT", "fixed", "DIM_INV", 33], r"DIM_INV must be in \[1, 32\], got 33"),
        (
            ["SELECT", "fixed", "DIM_INV", 4, "EPS", -1.0],
            "EPS must be a finite number > 0, got -1.0",
        ),
        (["TEXT_WEIGHT", 1.0], r"TEXT_WEIGHT must be a number in \(0, 1\), got 1"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_encoded(
    options, message, make_trainer, tmp_path, encoded
):
    keys = [f"TRAINER.CLIP_ICM.{v}" if i % 2 == 0 else v for i, v in enumerate(options)]
    with pytest.raises(ValueError, match=message):
        make_trainer("CLIP_ICM", tmp_path, *FEW, *keys)
    assert encoded[0] == 0


def test_fewer_pairs_than_dimensions_are_refused_or_drawn(make_trainer, tmp_path):
    few = [*FEW, "DATASET.NUM_SHOTS", 2]
    with pytest.raises(ValueError, match="20 images and 1 intervention each give 20 pairs for 32"):
        make_trainer("CLIP_ICM", tmp_path, *few)
    assert make_trainer("CLIP_ICM", tmp_path, *few, "TRAINER.CLIP_ICM.DRAWS", 0).sources.draws == 7


def test_one_class_only_is_refused(make_trainer, tmp_path, monkeypatch):
    from causalclip.datasets.handwritten_digits import HandwrittenDigits

    monkeypatch.setattr(HandwrittenDigits, "classnames", ["zero"])
    with pytest.raises(ValueError, match=r"needs two classes or more, got \['zero'\]"):
        make_trainer("CLIP_ICM", tmp_path, *FEW)


def test_domains_that_do_not_exist_or_are_source_and_target_are_refused(make_trainer, tmp_path):
    with pytest.raises(ValueError, match="TARGET_DOMAINS must be among ink, chalk, neon, noisy"):
        make_trainer("CLIP_ICM", tmp_path, *FEW, "DATASET.TARGET_DOMAINS", ["fresco"])
    with pytest.raises(ValueError, match="must not be among the sources, got ink"):
        make_trainer("CLIP_ICM", tmp_path, *FEW, "DATASET.TARGET_DOMAINS", ["ink"])


def test_weights_that_give_nan_name_the_image(make_trainer, tmp_path, small_clip, monkeypatch):
    trainer = make_trainer("CLIP_ICM", tmp_path, *FEW, "FEATURE_CACHE", False)
    broken = load_clip(small_clip)
    broken.visual.proj.data.fill_(torch.nan)
    monkeypatch.setattr(trainer, "clip", broken)
    with pytest.raises(ValueError, match=r"NaN or infinity for .* the first: .*ink.*\.png"):
        trainer.train()
