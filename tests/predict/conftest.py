"""Short runs on a random CLIP, each trained once for all tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from causalclip.engine.draws import generators_kept
from causalclip.records.predictions import Predictions

# CLIP_ICM: allow pairs from few images
OPTIONS = {"CLIP_ICM": ["TRAINER.CLIP_ICM.INTERVENTIONS", "BOTH"]}


@pytest.fixture(scope="session")
def run(make_cfg, tmp_path_factory):
    """A function (trainer, KEY, VALUE, ...) -> folder of a run whose data folder is missing."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    made: dict[tuple, Path] = {}

    def run(trainer: str, *options) -> Path:
        key = (trainer, *options)
        if key not in made:
            folder = tmp_path_factory.mktemp(trainer)
            cfg = make_cfg(trainer, folder, *OPTIONS.get(trainer, []), *options)
            with generators_kept():
                set_random_seed(cfg.SEED)
                build_trainer(cfg).train()
            changed(folder, "config.DATASET.ROOT", "/nowhere")
            made[key] = folder
        return made[key]

    return run


def changed(folder: Path, key: str, value) -> None:
    """Set an entry of a results.json by its dotted key; None removes it."""
    path = folder / "results.json"
    record = node = json.loads(path.read_text())
    *parents, last = key.split(".")
    for name in parents:
        node = node[name]
    node[last] = value
    if value is None:
        del node[last]
    path.write_text(json.dumps(record))


@pytest.fixture
def change():
    """A function (folder, key, value) that sets an entry of a results.json."""
    return changed


@pytest.fixture
def recorded():
    """A function folder -> the arrays of the folder's predictions.npz."""
    return lambda folder: dict(Predictions.read(folder / "predictions.npz").arrays)


@pytest.fixture(autouse=True)
def generators_stay():
    """Check that no prediction changes the state of the random generators."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())
