"""What version 87e1c13 fitted is still read: checkpoints of feature methods, and a projection.

`make_fits.py` made the files; the oracle is what the old code predicted and said of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from causalclip.icm.subspace import InvariantProjection

FITS = Path(__file__).parent / "fits"
METHODS = sorted(folder.name for folder in FITS.iterdir())
OPTIONS = ["MODEL.BACKBONE.NAME", "tiny", "DATASET.SOURCE_DOMAINS", ["ink", "chalk"]]
OPTIONS += ["DATASET.TARGET_DOMAINS", ["neon"]]


def load(make_trainer, method: str, output_dir: Path, *options):
    trainer = make_trainer(method, output_dir, *OPTIONS, *options)
    trainer.load_model(str(FITS / method))
    return trainer


def stored(method: str) -> dict:
    file = FITS / method / "fit" / "model.pth.tar-1"
    return torch.load(file, weights_only=True)["state_dict"]


@pytest.mark.parametrize("method", METHODS)
def test_an_old_fit_predicts_and_says_what_it_did(method, make_trainer, tmp_path):
    load(make_trainer, method, tmp_path).test()
    record = json.loads((tmp_path / "results.json").read_text())
    said = json.loads((FITS / method / "said.json").read_text())
    assert record["details"] == said["details"]
    assert record["metrics"] == pytest.approx(said["metrics"], rel=1e-4)
    assert set(record["variants"]) == set(said["variants"])
    ours = np.load(tmp_path / "predictions.npz")
    theirs = np.load(FITS / method / "predictions.npz")
    assert set(ours.files) == {*theirs.files, "path"}
    for name in theirs.files:
        assert ours[name][: len(theirs[name])] == pytest.approx(theirs[name], abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_an_old_fit_is_written_again_as_it_was(method, make_trainer, tmp_path):
    state, old = load(make_trainer, method, tmp_path).model.state_dict(), stored(method)
    assert list(state) == list(old)
    assert state.pop("_extra_state") == old.pop("_extra_state")
    assert all(torch.equal(state[name], tensor) for name, tensor in old.items())


def test_an_old_fit_refuses_other_classes_where_it_did(make_trainer, tmp_path):
    new = ("DATASET.SUBSAMPLE_CLASSES", "new")
    with pytest.raises(ValueError, match=r"knows only its 5 classes .*zero.*this run has 5 \(five"):
        load(make_trainer, "LinearProbe", tmp_path, *new)
    load(make_trainer, "CLIP_ICM", tmp_path, *new).test()
    record = json.loads((tmp_path / "results.json").read_text())
    assert set(record["variants"]) == {"zeroshot", "zeroshot_icm"}


def test_an_old_projection_is_that_of_its_checkpoint():
    projection = InvariantProjection.load(FITS / "CLIP_ICM" / "projection.safetensors")
    old = stored("CLIP_ICM")
    described = old["_extra_state"]["details"]["heads"]["zeroshot"]
    assert torch.equal(projection.basis, old["zeroshot_basis"])
    assert vars(projection.settings) == described["settings"]
    assert projection.dim_inv == described["choice"]["dim_inv"]
