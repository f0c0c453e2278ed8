"""CLIP_ICM's options end to end: other pairs, other interventions, cautious and exact choices."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from causalclip.clip.backbone import build_clip, save_tiny
from causalclip.clip.openai_clip import n_tokens, tokenize

KEYS = ["DATASET.SOURCE_DOMAINS", ["ink", "chalk"], "DATASET.TARGET_DOMAINS", ["neon"]]
FEW = [*KEYS, "DATASET.NUM_SHOTS", 8, "TRAINER.CLIP_ICM.GRID_EPS", [0.1, 1.0]]
FEW += ["TRAINER.CLIP_ICM.GRID_LAMS", [1.0], "TRAINER.CLIP_ICM.GRID_DIMS", [0.25, 0.5, 1.0]]


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory) -> str:
    """A CLIP of 32-d features, so that few images are pairs enough."""
    path = tmp_path_factory.mktemp("clip") / "small.safetensors"
    save_tiny(build_clip(vision_layers=2, transformer_layers=2, embed_dim=32), [], path)
    return str(path)


@pytest.fixture
def run(make_trainer, small_clip, tmp_path):
    """Train with options below TRAINER.CLIP_ICM; gives the trainer and its results."""

    def run(**options):
        options = {"INTERVENTIONS": "IMAGE", "PROBE_TEXTS": True, **options}  # the code's defaults
        keys = [value for key in options for value in (f"TRAINER.CLIP_ICM.{key}", options[key])]
        backbone = ["MODEL.BACKBONE.NAME", small_clip]
        trainer = make_trainer("CLIP_ICM", tmp_path, *backbone, *FEW, *keys)
        trainer.train()
        return trainer, json.loads((tmp_path / "results.json").read_text())

    return run


def test_images_are_paired_with_texts_alone_or_beside_pairs_of_images(run):
    values = 28  # of the grid's attributes
    fixed = {"SELECT": "fixed", "DIM_INV": 8, "DRAWS": 1}  # a choice might keep the plain features
    _, crossed = run(INTERVENTIONS="CROSS", **fixed)
    assert crossed["details"]["pairs"] == 80 * values
    _, figure = run(INTERVENTIONS="FIGURE", **fixed)
    assert figure["details"]["pairs"] == 80 + 80 * values
    _, centred = run(INTERVENTIONS="CROSS", REMOVE_GAP=True, **fixed)
    spectra = [r["details"]["heads"]["zeroshot"]["spectrum"] for r in (crossed, figure, centred)]
    assert spectra[0] != spectra[1] != spectra[2] != spectra[0]


def test_the_probes_subspace_may_be_of_pairs_of_images_alone(run):
    fixed = {"SELECT": "fixed", "DIM_INV": 8, "DRAWS": 1}
    found = {}
    for kind, texts in (("IMAGE", True), ("FIGURE", True), ("FIGURE", False)):
        trainer, _ = run(INTERVENTIONS=kind, PROBE_TEXTS=texts, **fixed)
        found[kind, texts] = trainer.fitted.projections
    mixed, images, figure = found["FIGURE", False], found["IMAGE", True], found["FIGURE", True]
    assert torch.equal(mixed["zeroshot"].basis, figure["zeroshot"].basis)
    assert torch.equal(mixed["linear_probe"].basis, images["linear_probe"].basis)
    assert not torch.equal(mixed["linear_probe"].basis, figure["linear_probe"].basis)


def test_draws_against_draws_are_pairs_of_the_changed_pictures_alone(run):
    trainer, record = run(AGAINST="draws", DRAWS=3, SELECT="fixed", DIM_INV=8, NORMALIZE=False)
    assert record["details"]["pairs"] == 80 * 3
    groups = [trainer.sources.pairs.changed(group) for group in trainer.sources.groups]
    draws = [torch.from_numpy(np.concatenate(part)).double() for part in zip(*groups, strict=True)]
    d = torch.cat([draws[0] - draws[1], draws[0] - draws[2], draws[1] - draws[2]])
    basis = trainer.fitted.projections["zeroshot"].basis.double()
    kept = (d @ basis).square().sum() / d.square().sum()
    said = record["details"]["heads"]["zeroshot"]["intervention_energy_kept"]
    assert said == pytest.approx(kept.item(), rel=1e-6)


def test_kinds_and_their_strength_are_those_asked_for(run):
    trainer, record = run(KINDS=["invert", "blur"], STRENGTH=2.0)
    assert {group.intervention.kinds for group in trainer.sources.groups} == {("invert", "blur")}
    assert trainer.sources.groups[0].intervention.params.blur_sigma == (0.2, 4.0)
    assert record["details"]["pairs"] >= 80


def test_raw_features_and_a_large_lambda_as_published_go_from_end_to_end(run):
    options = {"NORMALIZE": False, "NORMALIZE_PROJECTED": False, "GRID_LAMS": [10.0, 1000.0]}
    _, record = run(GRID_ESTIMATORS=["difference"], SELECT_MARGIN=0.0, **options)
    head = record["details"]["heads"]["zeroshot"]
    assert {cell["strength"] for cell in head["grid"]} == {10.0, 1000.0}
    assert head["settings"]["normalize"] is False


def test_a_choice_with_a_margin_says_what_it_gains_and_may_keep_everything(run, capsys):
    _, record = run(SELECT_MARGIN=50.0)
    head = record["details"]["heads"]["zeroshot"]
    assert head["choice"]["dim_inv"] == 32 and head["gain"]["standard_error"] >= 0
    variants = record["variants"]
    assert variants["zeroshot_icm"]["accuracy"] == variants["zeroshot"]["accuracy"]
    assert "standard error" in capsys.readouterr().out


def test_the_rule_of_one_standard_error_gives_up_accuracy_for_width(run):
    _, record = run(RULE="one_standard_error", SELECT_MARGIN=0.0)
    head = record["details"]["heads"]["zeroshot"]
    assert "gain" not in head
    top = max(head["grid"], key=lambda cell: cell["mean"])
    assert head["source_accuracy"] <= top["mean"]
    assert head["choice"]["dim_inv"] >= top["dim_inv"]


def test_the_probe_may_choose_by_its_own_loss(run):
    _, record = run(SELECT_PROBE="logistic", GRID_DIMS=[0.5, 1.0], GRID_EPS=[0.1])
    grid = record["details"]["heads"]["linear_probe"]["grid"]
    whole = [cell["accuracies"] for cell in grid if cell["dim_inv"] == 32]
    # A turned basis of everything leaves a probe as it is, up to where L-BFGS stops.
    np.testing.assert_allclose(whole[0], whole[1], atol=3)


def test_a_bootstrap_is_said_and_written(run, capsys):
    _, record = run(BOOTSTRAP=5, SELECT="fixed", DIM_INV=8, ESTIMATOR="difference")
    certainty = record["details"]["heads"]["zeroshot"]["certainty"]
    assert certainty["resamples"] == 5 and certainty["angle_50"] <= certainty["angle_95"]
    assert certainty["gap"] > 0 and 0 < certainty["bound"] <= 90
    out = capsys.readouterr().out
    assert "zeroshot: k = 8: 95 % of angles below " in out
    heads = record["details"]["heads"].values()
    unsure = [head for head in heads if not head["certainty"]["determined"]]
    assert out.count("warning: the subspace is not determined") == len(unsure)


def test_captions_above_the_context_are_refused_or_cut_with_a_count(run, tmp_path, capsys):
    trainer, _ = run(SELECT="fixed", DIM_INV=8)
    long = " ".join(["a very long caption"] * 40)
    rows = [
        {"image": trainer.encoder.key_of(item.impath), "caption": f"{i} {long}", "rewrites": ["x"]}
        for i, item in enumerate(trainer.dm.dataset.train_x[:20])
    ]
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(rows))
    options = {"INTERVENTIONS": "BOTH", "CAPTIONS": str(path)}
    with pytest.raises(ValueError, match=r"takes 1\d\d tokens, more than the context length"):
        run(**options)
    capsys.readouterr()
    _, record = run(CAPTIONS_TOO_LONG="cut", **options)
    assert "Cut 20 of 21 captions at" in capsys.readouterr().out
    assert record["details"]["pairs"] >= 80 + 20


def test_a_cut_text_keeps_its_first_tokens_and_its_end():
    text = " ".join(["word"] * 100)
    ids, whole = tokenize(text, 20, cut=True)[0], tokenize(text, 120)[0]
    assert n_tokens(text) == 102 and len(ids) == 20
    assert torch.equal(ids[:19], whole[:19]) and ids[19] == whole.max()
    assert torch.equal(tokenize("a cat", 20, cut=True), tokenize("a cat", 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"KINDS": ["crop"]}, r"KINDS must be a list .* got \['crop'\]"),
        ({"KINDS": []}, r"KINDS must be a list of 1 or more"),
        ({"STRENGTH": 0.0}, r"STRENGTH must be a number in \(0, 4\], got 0.0"),
        ({"AGAINST": "draws", "DRAWS": 1}, "AGAINST draws needs DRAWS 0 or above 1 .* got 1"),
        ({"REMOVE_GAP": True}, "REMOVE_GAP needs INTERVENTIONS CROSS or FIGURE, got IMAGE"),
        ({"BOOTSTRAP": 9, "INTERVENTIONS": "TEXT"}, "BOOTSTRAP needs image pairs .* got .* TEXT"),
        ({"SELECT_MARGIN": -1.0}, "SELECT_MARGIN must be a finite number >= 0, got -1.0"),
        ({"RULE": "second"}, "RULE must be one of best, one_standard_error, got 'second'"),
        ({"SELECT_PROBE": "svm"}, "SELECT_PROBE must be one of ridge, logistic, got 'svm'"),
        ({"CAPTIONS_TOO_LONG": "skip"}, "CAPTIONS_TOO_LONG must be one of error, cut"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, message, run):
    with pytest.raises(ValueError, match=message):
        run(**options)


def test_a_bootstrap_of_too_few_images_is_refused(make_trainer, small_clip, tmp_path):
    few = ["MODEL.BACKBONE.NAME", small_clip, *FEW, "DATASET.NUM_SHOTS", 1]
    with pytest.raises(ValueError, match="at least 20 images, got 10"):
        make_trainer("CLIP_ICM", tmp_path, *few, "TRAINER.CLIP_ICM.BOOTSTRAP", 10)
