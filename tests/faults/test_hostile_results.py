"""Damaged files of one method in a folder: tables and page show the other method, no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import called, damaged, faults
from hypothesis import given, settings
from hypothesis import strategies as st

from causalclip.metrics import classification_metrics
from causalclip.page.command import Renderer, write_page
from causalclip.records.identity import Identity, write_run
from causalclip.records.predictions import Predictions
from causalclip.records.results import Result
from causalclip.report import summarize

NAMES = ["ant", "bee", "cat"]
INTACT, DAMAGED = {"base": 61.17, "new": 52.83}, {"base": 71.17, "new": 42.83}
FILES = ["results.json", "run.json", "predictions.npz", "model.pth.tar-1", "checkpoint"]


def write(folder: Path, trainer: str, half: str, accuracy: float) -> None:
    """Write everything that a run leaves."""
    rng = np.random.default_rng(0)
    labels = np.arange(12) % 3
    p = rng.dirichlet(np.ones(3), 12).astype(np.float32)
    arrays = {"label": labels, "probabilities": p, "prediction": p.argmax(-1)}
    arrays |= {"uncertainty": 1 - p.max(-1).astype(float)}
    arrays["path"] = np.array([f"{folder}/{row}.png" for row in range(12)])
    metrics = classification_metrics(p, labels, arrays["uncertainty"])
    record = {"schema": 2, "trainer": trainer, "config_name": "tiny", "backbone": "tiny"}
    record |= {
        "dataset": "Set",
        "shots": 16,
        "seed": 1,
        "classnames": NAMES,
        "protocol": "base2new",
    }
    record |= {"metrics": {**metrics, "accuracy": accuracy}, "subsample_classes": half}
    curve = {"epoch": [1, 2], "loss": [3.0, 2.0], "accuracy": [50.0, 60.0]}
    record |= {"training": {"seconds": 3.0, "epochs": 2, "curve": curve}}
    record |= {"config": {"OPTIM": {"LR": 0.1}}, "time": "2026-01-02T03:04:05+00:00"}
    Result.of_record(record).write(folder)
    Predictions(arrays).write(folder)
    write_run(folder, Identity({"OPTIM.LR": 0.1}), {})
    torch.save({"state_dict": {"ctx": torch.zeros(2)}, "epoch": 1}, folder / "model.pth.tar-1")
    (folder / "checkpoint").write_text("model.pth.tar-1\n")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for trainer, accuracies in (("CoOp", INTACT), ("MaPLe", DAMAGED)):
        for half, accuracy in accuracies.items():
            write(folder / trainer / half, trainer, half, accuracy)
    shutil.copytree(folder / "MaPLe", folder.with_name("undamaged"))
    return folder


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """One for all examples: it keeps the figures of the undamaged runs."""
    return Renderer(images=3)


@pytest.fixture
def damage(root):
    """A function (data) -> None that damages a file or two of one method."""

    def apply(data: st.DataObject) -> None:
        shutil.rmtree(root / "MaPLe")
        shutil.copytree(root.with_name("undamaged"), root / "MaPLe")
        for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2)):
            path = root / "MaPLe" / data.draw(st.sampled_from(["base", "new"])) / name
            path.write_bytes(data.draw(damaged(path.read_bytes())))

    return apply


def test_undamaged_files_are_all_shown(root, renderer, tmp_path):
    _, out, err = called(summarize.main, root)
    write_page(renderer, root, tmp_path / "page.html")
    for text in (out, (tmp_path / "page.html").read_text()):
        assert all(f"{value:.1f}" in text for value in [*INTACT.values(), *DAMAGED.values()])
    assert "not shown" not in err


@faults
@given(data=st.data())
def test_tables_show_the_other_results(root, damage, data):
    damage(data)
    status, out, err = called(summarize.main, root)
    assert status == 0
    assert all(f"{value:.1f}" in out for value in INTACT.values())
    assert all(line.startswith("not shown: ") for line in err.splitlines())


@settings(faults, max_examples=max(faults.max_examples // 3, 1))  # a second each
@given(data=st.data())
def test_the_page_shows_the_other_results(root, damage, renderer, data, tmp_path_factory):
    damage(data)
    path = tmp_path_factory.mktemp("page") / "page.html"
    _, out, err = called(lambda _: bool(write_page(renderer, root, path)))
    text = path.read_text()
    assert all(f"{value:.1f}" in text for value in INTACT.values())
    assert out.startswith(f"wrote {path}")
    assert "not shown: " in err or "MaPLe" in text
