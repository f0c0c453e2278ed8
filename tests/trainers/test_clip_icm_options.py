"""CLIP_ICM's options end to end: other pairs, other interventions, cautious and exact choices."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

KEYS = ["DATASET.SOURCE_DOMAINS", ["ink", "chalk"], "DATASET.TARGET_DOMAINS", ["neon"]]
FEW = [*KEYS, "DATASET.NUM_SHOTS", 8, "TRAINER.CLIP_ICM.GRID_EPS", [0.1, 1.0]]
FEW += ["TRAINER.CLIP_ICM.GRID_LAMS", [1.0], "TRAINER.CLIP_ICM.GRID_DIMS", [0.25, 0.5, 1.0]]


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


def test_images_are_paired_with_texts_alone_or_with_images_too(run):
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


def test_a_choice_with_a_margin_says_what_it_gains_and_may_keep_everything(run, capsys):
    _, record = run(SELECT_MARGIN=50.0)
    head = record["details"]["heads"]["zeroshot"]
    assert head["choice"]["dim_inv"] == 32 and head["gain"]["standard_error"] >= 0
    variants = record["variants"]
    assert variants["zeroshot_icm"]["accuracy"] == variants["zeroshot"]["accuracy"]
    assert "standard error" in capsys.readouterr().out


def test_the_probe_may_choose_by_its_own_loss(run):
    _, record = run(SELECT_PROBE="logistic", GRID_DIMS=[0.5, 1.0], GRID_EPS=[0.1])
    grid = record["details"]["heads"]["linear_probe"]["grid"]
    whole = [cell["accuracies"] for cell in grid if cell["dim_inv"] == 32]
    # A turned basis of everything leaves a probe as it is, up to where L-BFGS stops.
    np.testing.assert_allclose(whole[0], whole[1], atol=3)


def test_a_bootstrap_is_logged_and_recorded(run, capsys):
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
