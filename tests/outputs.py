"""Read what a run has written."""

from __future__ import annotations

import json

import numpy as np


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def arrays_of(folder) -> dict[str, np.ndarray]:
    with np.load(folder / "predictions.npz") as file:
        return dict(file)
