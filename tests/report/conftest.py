"""Writers of results whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest

from causalclip.report.predictions import Predictions
from causalclip.report.results import Result


@pytest.fixture
def write_run(tmp_path):
    """Write one result; `folder` is where its seedN lies below the root."""

    def write(folder, accuracy, *, seed=1, trainer="CDC", subsample="all", target=(), **more):
        made = {
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
        directory = tmp_path / folder / trainer / made["config_name"] / f"seed{seed}"
        Result.of_record({"schema": 2, **made}).write(directory)
        uncertainty = np.linspace(0, 1, 5) + (2 if subsample == "new" else 0)
        Predictions({"uncertainty": uncertainty}).write(directory)
        return directory

    return write


@pytest.fixture
def write_pair(write_run):
    """Write both halves of a base-to-novel run."""

    def write(base, new, *, dataset="Set", place="", **more):
        write_run(f"{dataset}{place}/base", base, subsample="base", dataset=dataset, **more)
        write_run(f"{dataset}{place}/new", new, subsample="new", dataset=dataset, **more)

    return write


@pytest.fixture
def write_target(write_run):
    """Write an evaluation on another data set than the one trained on."""

    def write(dataset, accuracy, *, source="ImageNet", trained_shots=16, **more):
        trained_on = {
            "dataset": source,
            "shots": trained_shots,
            "seed": 1,
            "subsample_classes": "all",
            "source_domains": [],
            "classnames": [],
        }
        write_run(dataset, accuracy, dataset=dataset, trained_on=trained_on, shots=-1, **more)

    return write
