"""predictions.npz: what a method answered about every test image (docs/results.md)."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causalclip.files.atomic import replacing

PREDICTIONS_FILE = "predictions.npz"


@dataclass(frozen=True)
class Predictions:
    """The arrays of one evaluation, a row a test image in each.

    `arrays` holds `path`, `label`, `prediction`, and `probabilities` (N, K) and `uncertainty`
    (N,) of the method's own reading; another reading's stand under `READING/probabilities` and
    `READING/uncertainty`. One that was read from a file loads an array when it is asked for.
    """

    arrays: Mapping[str, NDArray]
    source: str = "these predictions"
    """Where they are from, for errors."""

    @classmethod
    def read(cls, path: str | Path) -> Predictions:
        """The predictions in the file `path`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: an empty, cut or malformed file; names it.
        """
        try:
            found = np.load(path)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: cut or damaged, not an npz archive: {error}") from error
        if not isinstance(found, Mapping):
            raise ValueError(f"{path}: one array, not an npz archive of named ones")
        return cls(found, str(path))

    def write(self, folder: str | Path) -> Path:
        """Write predictions.npz into `folder`, whole or not at all; its path.

        Raises:
            ValueError: arrays of different lengths.
        """
        rows = {name: len(array) for name, array in self.arrays.items()}
        if len(set(rows.values())) > 1:
            raise ValueError(f"every array must have one row a test image, got {rows}")
        path = Path(folder) / PREDICTIONS_FILE
        with replacing(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, **self.arrays)  # type: ignore[arg-type]  # takes any name
        return path

    def probabilities(self, reading: str = "") -> NDArray[np.floating]:
        """(N, K) of the method's own reading, or of another one by name."""
        return self._array(reading, "probabilities")

    def uncertainty(self, reading: str = "") -> NDArray[np.floating]:
        """(N,) of the method's own reading, or of another one by name; larger is less certain."""
        return self._array(reading, "uncertainty")

    def readings(self) -> list[str]:
        """The names of the other readings."""
        suffix = "/probabilities"
        return [name.removesuffix(suffix) for name in self.arrays if name.endswith(suffix)]

    def _array(self, reading: str, what: str) -> NDArray[np.floating]:
        name = f"{reading}/{what}" if reading else what
        if name not in self.arrays:
            raise ValueError(f"{self.source}: no {name}, there are {', '.join(self.arrays)}")
        try:
            return self.arrays[name]
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.source}: {name} is damaged: {error}") from error
