"""Functions that write results with known numbers."""

from __future__ import annotations

import numpy as np
import pytest

from causalclip.records.predictions import Predictions
from causalclip.records.results import Result


@pytest.fixture
def write_run(tmp_path):
    """Write one result; `folder` is the parent of its TRAINER/CONFIG/seedN below the root."""

    def write(folder, accuracy, *, seed=1, trainer="CDC", subsample="all", target=(), **more):
        record = {
            "schema": 2,
            "trainer": trainer,
            "backbone": "tiny",
            "dataset": "Set",
            "shots": 16,
            "seed": seed,
            "subsample_classes": subsample,
            "target_domains": list(target),
            "config_name": "cfg",
            "metrics": {"accuracy": accuracy, "ece": 5.0},
            "training": {"seconds": 10.0},
            **more,
        }
        directory = tmp_path / str(folder) / trainer / record["config_name"] / f"seed{seed}"
        Result.of_record(record).write(directory)
        uncertainty = np.linspace(0, 1, 5) + (2 if subsample == "new" else 0)
        Predictions({"uncertainty": uncertainty}).write(directory)
        return directory

    return write


@pytest.fixture
def write_pair(write_run):
    """Write both halves of a base-to-novel run."""

    def write(base, new, *, dataset="Set", place="", **more):
        for half, accuracy in (("base", base), ("new", new)):
            write_run(f"{dataset}{place}/{half}", accuracy, subsample=half, dataset=dataset, **more)

    return write


@pytest.fixture
def write_target(write_run):
    """Write an evaluation on another data set, or other classes, than those trained on."""

    def write(dataset, accuracy, *, source="ImageNet", classes="all", **more):
        trained_on = {"dataset": source, "shots": 16, "seed": 1, "subsample_classes": classes}
        trained_on |= {"source_domains": [], "classnames": []}
        write_run(dataset, accuracy, dataset=dataset, trained_on=trained_on, shots=-1, **more)

    return write
