"""What a run answered about its test images, checked, as the figures and the gallery need it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalclip.report.predictions import Predictions
from causalclip.report.results import Result

DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
"""What reading a cut archive can raise, an array at a time."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The arrays of one predictions.npz, a row an image in each."""

    paths: NDArray[np.str_]
    labels: NDArray[np.integer]
    readings: Mapping[str, tuple[NDArray, NDArray]]
    """Probabilities (N, K) and uncertainty (N,) by name; the method's own is the first."""
    conflict: NDArray | None = None
    templates: NDArray | None = None
    """(N, M, K), what each member of an ensemble says."""
    opinions: NDArray | None = None
    """(N, M), how uncertain each is."""

    @classmethod
    def read(cls, path: Path, result: Result) -> Answers:
        """The answers beside a result.

        Raises:
            ValueError: the file is missing, damaged or does not belong to the result; names it.
        """
        try:
            found = Predictions.read(path)
            arrays = {name: np.asarray(found.arrays[name]) for name in found.arrays}
        except DAMAGED as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
        if problem := _unfit(arrays, len(result.classnames)):
            raise ValueError(f"{path}: {problem}")
        return cls(
            arrays["path"],
            arrays["label"],
            _distinct(found.readings(), arrays),
            arrays.get("conflict"),
            arrays.get("template_probabilities"),
            arrays.get("template_uncertainty"),
        )

    @property
    def probabilities(self) -> NDArray:
        """(N, K), of the method's own reading."""
        return next(iter(self.readings.values()))[0]

    @property
    def uncertainty(self) -> NDArray:
        """(N,), of the method's own reading."""
        return next(iter(self.readings.values()))[1]

    @property
    def predicted(self) -> NDArray[np.integer]:
        """(N,), the classes of the method's own reading."""
        return self.probabilities.argmax(-1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,), which images were told right."""
        return self.predicted == self.labels


def _unfit(arrays: Mapping[str, NDArray], classes: int) -> str:
    """Why the arrays cannot be used; empty where they can."""
    needed = ("path", "label", "probabilities", "uncertainty")
    if missing := [name for name in needed if name not in arrays]:
        return f"lacks {', '.join(missing)}"
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1 or not rows["path"]:
        return f"every array must have one row a test image, and one at least, got {rows}"
    shape = arrays["probabilities"].shape
    if len(shape) != 2 or shape[1] != classes:
        return f"probabilities of shape {shape}, but results.json names {classes} classes"
    labels = arrays["label"]
    if labels.min() < 0 or labels.max() >= classes:
        return f"labels must be in [0, {classes}), got {labels.min()} .. {labels.max()}"
    return ""


def _distinct(names: list[str], arrays: Mapping[str, NDArray]) -> dict[str, Any]:
    """Each reading once; the method's own first, by its name where it is one of the others."""
    own = (arrays["probabilities"], arrays["uncertainty"])
    others = {
        name: (arrays[f"{name}/probabilities"], arrays[f"{name}/uncertainty"])
        for name in names
        if f"{name}/uncertainty" in arrays
    }
    same = [
        name
        for name, (p, u) in others.items()
        if np.array_equal(p, own[0]) and np.array_equal(u, own[1])
    ]
    first = same[0] if same else "own reading"
    return {first: own, **{name: pair for name, pair in others.items() if name not in same}}
