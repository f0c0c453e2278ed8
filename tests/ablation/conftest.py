"""Planners of ablations, and results with known numbers."""

from __future__ import annotations

import numpy as np
import pytest

from causalclip.ablation.command import ABLATIONS, parser, request
from causalclip.ablation.tables import Planner, Row, Variant
from causalclip.records.predictions import Predictions
from causalclip.records.results import Result
from causalclip.runs import flags
from causalclip.runs.plan import Run


@pytest.fixture
def planner(tmp_path):
    """A function (method, KEY, VALUE, ...) -> the planner of a dry run."""

    def make(method, *settings, words=()):
        line = ["--methods", method, "--seeds", "1", "2", "--output", str(tmp_path), *words]
        return Planner(request(flags.parse([*line, *settings], parser())), dry=True)

    return make


@pytest.fixture
def planned_rows(planner):
    """A function (method, table, KEY, VALUE, ...) -> {row: KEY VALUE pairs of its own}."""

    def make(method, table, *settings):
        made = planner(method, *settings)
        reference = made.reference()
        rows = made.rows(ABLATIONS[method].tables[table], table, reference)
        return {row.variant.name: dict(own(row.runs[0], settings)) for row in rows}

    return make


def own(run: Run, settings):
    """Return the KEY VALUE pairs of a row that the reference does not have."""
    words = run.arguments[run.arguments.index("DATASET.NUM_SHOTS") :]
    pairs = list(zip(words[::2], words[1::2], strict=True))
    skip = ("DATASET.", "TEST.", "TRAIN.")
    start = len(settings) // 2
    pairs = [(key, value) for key, value in pairs if not key.startswith(skip)][start:]
    return [(key.rpartition(".")[2], value) for key, value in pairs]


RECORD = {"schema": 2, "trainer": "CDC", "backbone": "tiny", "dataset": "Set", "shots": 16}


@pytest.fixture
def made_row(tmp_path):
    """A function (name, base, new, reading) -> a CDC row of one seed with these accuracies."""

    def make(name, base, new, *, seed=1, reading="", epoch="", cosines=((1, 0.5), (0.5, 1))):
        runs = []
        uncertainty = {"base": [0.1, 0.2, 0.4], "new": [0.3, 0.5, 0.9]}
        for part, accuracy in (("train_base", 0), ("val_base", base), ("val_new", new)):
            folder = tmp_path / name / part / f"seed{seed}"
            half = part.rpartition("_")[2]
            told = {"accuracy": accuracy, "ece": accuracy / 10}
            training = {"seconds": 4.0, "steps": 200, "learnable_parameters": 5000}
            Result.of_record(
                {
                    **RECORD,
                    "protocol": "ablation",
                    "seed": seed,
                    "subsample_classes": half,
                    "metrics": told,
                    "variants": {"dempster": {**told, "ece": 50.0}},
                    "members": {"template": [{**told, "accuracy": 10.0}, told]},
                    "training": {**training, "peak_memory_mb": 300.0},
                    "evaluation": {"images": 30, "seconds": 0.5},
                    "details": {"template_cosines": [list(line) for line in cosines]},
                }
            ).write(folder)
            of = np.array(uncertainty[half])
            Predictions(
                {
                    "uncertainty": of,
                    "dempster/uncertainty": of[::-1].copy(),
                    "template_uncertainty": np.stack([-of, of], axis=1),
                    "prediction": np.array([0, 1, 1]),
                    "label": np.array([0, 1, 0]),
                }
            ).write(folder)
            runs.append(Run(part, folder, ()))
        return Row(Variant(name, reading=reading, epoch=epoch), tuple(runs))

    return make
