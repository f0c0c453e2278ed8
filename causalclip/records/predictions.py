"""predictions.npz: the predictions for every test image (docs/results.md)."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from causalclip.files.atomic import replacing
from causalclip.files.reading import require_regular

PREDICTIONS_FILE = "predictions.npz"
# Errors of a damaged archive or header; RuntimeError: unknown compression, or a password is needed.
_DAMAGE = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError)
_MOST_BYTES = 1 << 28
_MOST_RATIO = 100
"""Arrays may have more than _MOST_BYTES if that is at most this many times the archive's size."""
_FLOAT, _INTEGER, _TEXT = "f", "iu", "U"
_KINDS = {"path": (_TEXT, 1), "label": (_INTEGER, 1), "prediction": (_INTEGER, 1)}
_KINDS |= {"probabilities": (_FLOAT, 2), "uncertainty": (_FLOAT, 1)}
_KINDS |= {"energy": (_FLOAT, 1), "conflict": (_FLOAT, 1)}
"""Last word of an array's name -> its NumPy kinds and rank; members' arrays have one rank more."""


@dataclass(frozen=True)
class Predictions:
    """The arrays of one evaluation, each with one row per test image.

    `arrays` contains `path`, `label`, `prediction`, and `probabilities` (N, K) and `uncertainty`
    (N,) of the method's own reading. Those of another reading are `READING/probabilities` and
    `READING/uncertainty`. Predictions that are read from a file load each array on access.
    """

    arrays: Mapping[str, NDArray]
    source: str = "these predictions"
    """Source of the arrays, for error messages."""

    @classmethod
    def read(cls, path: str | Path) -> Predictions:
        """Return the predictions in the file `path`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a regular file, a cut or malformed one, or arrays of another kind, rank
                or size; names the file. This is checked before any array is read.
        """
        size = require_regular(path)
        try:
            with zipfile.ZipFile(path) as archive:
                _check_members(archive, size)
            return cls(np.load(path), str(path))
        except _DAMAGE as error:
            raise ValueError(f"{path}: cut or damaged: {error}") from error

    def write(self, folder: str | Path) -> Path:
        """Write predictions.npz into `folder` atomically; return its path.

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
        """Return the probabilities (N, K) of the method's own reading, or of another by name."""
        return self._array(reading, "probabilities")

    def uncertainty(self, reading: str = "") -> NDArray[np.floating]:
        """Return the uncertainty (N,) of the method's own reading, or of another by name."""
        return self._array(reading, "uncertainty")

    def readings(self) -> list[str]:
        """Return the names of the other readings."""
        suffix = "/probabilities"
        return [name.removesuffix(suffix) for name in self.arrays if name.endswith(suffix)]

    def _array(self, reading: str, what: str) -> NDArray[np.floating]:
        name = f"{reading}/{what}" if reading else what
        if name not in self.arrays:
            raise ValueError(f"{self.source}: no {name}, there are {', '.join(self.arrays)}")
        try:
            return self.arrays[name]
        except _DAMAGE as error:
            raise ValueError(f"{self.source}: {name} is damaged: {error}") from error


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ValueError for arrays that cannot be predictions, from their headers alone."""
    total = sum(info.file_size for info in archive.infolist())
    if total > max(_MOST_BYTES, _MOST_RATIO * size):
        raise ValueError(f"it holds {total:,} bytes in {size:,}, more than predictions can")
    rows = {}
    for info in archive.infolist():
        with archive.open(info) as member:
            is_first = np.lib.format.read_magic(member) == (1, 0)
            read = np.lib.format.read_array_header_1_0
            shape, _, dtype = (read if is_first else np.lib.format.read_array_header_2_0)(member)
            content = info.file_size - member.tell()
        name = info.filename.removesuffix(".npy")
        kinds, rank = _kind_of(name)
        wrong = dtype.kind not in kinds or not shape or (rank and len(shape) != rank)
        if wrong or not dtype.itemsize or math.prod(shape) * dtype.itemsize != content:
            raise ValueError(
                f"{name} must be of kind {' or '.join(kinds)} and {rank or 'some'} dimensions, got "
                f"{dtype} of shape {shape} in {content:,} bytes"
            )
        rows[name] = shape[0]
    if len(set(rows.values())) > 1:
        raise ValueError(f"every array must have one row a test image, got {rows}")


def _kind_of(name: str) -> tuple[str, int]:
    """Return the allowed kinds of an array, and its rank, or 0 if any rank is allowed."""
    last = name.rpartition("/")[2]
    if last in _KINDS:
        return _KINDS[last]
    kinds, rank = _KINDS.get(last.rpartition("_")[2], (_FLOAT + _INTEGER + _TEXT + "b", -1))
    return kinds, rank + 1
