"""Short runs on a random CLIP, each trained once for all tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from causalclip.report.predictions import Predictions


@pytest.fixture(scope="session")
def run(make_cfg, tmp_path_factory):
    """A function (trainer, KEY, VALUE, ...) -> folder of a finished run whose data are elsewhere."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    made: dict[tuple, Path] = {}

    def run(trainer: str, *options) -> Path:
        if (trainer, *options) not in made:
            folder = tmp_path_factory.mktemp(trainer)
            cfg = make_cfg(trainer, folder, *options)
            set_random_seed(cfg.SEED)
            build_trainer(cfg).train()
            change(folder, ["config", "DATASET", "ROOT"], "/nowhere")
            made[trainer, *options] = folder
        return made[trainer, *options]

    return run


def change(folder: Path, keys: list[str], value) -> None:
    """Set an entry of a results.json."""
    path = folder / "results.json"
    record = node = json.loads(path.read_text())
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(json.dumps(record))


@pytest.fixture
def recorded():
    """A function folder -> the arrays of its predictions.npz, in memory."""

    def recorded(folder: Path) -> dict:
        return dict(Predictions.read(folder / "predictions.npz").arrays)

    return recorded


@pytest.fixture(autouse=True)
def generators_stay():
    """No test of predicting may move the random stream."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())
