"""A folder of results: its runs, their predictions, and the files that could not be read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.records.results import PROTOCOL_TITLES, Result
from causalclip.report.notes import PAIR
from causalclip.report.runs import class_mismatches, load_results, protocol_of, run_table
from causalclip.report.tables import scores, shots_name

UNREADABLE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
"""Errors that can be raised while arrays are read from a damaged archive."""
REQUIRED_ARRAYS = ("path", "label", "probabilities", "uncertainty")


@dataclass(frozen=True, eq=False)
class Answers:
    """The checked predictions of one run."""

    arrays: Mapping[str, NDArray]
    """Arrays of predictions.npz (docs/results.md), with a row for each test image."""
    readings: Mapping[str, tuple[NDArray, NDArray]]
    """Probabilities (N, K) and uncertainty (N,) by name; the method's own is the first."""

    @classmethod
    def read(cls, path: Path, result: Result) -> Answers:
        """Return the predictions in `path`, which belong to `result`.

        Raises:
            ValueError: the file is missing, damaged or does not belong to the result; names it.
        """
        try:
            predictions = Predictions.read(path)
            arrays = {name: np.asarray(predictions.arrays[name]) for name in predictions.arrays}
        except UNREADABLE as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
        if problem := _problem(arrays, len(result.classnames)):
            raise ValueError(f"{path}: {problem}")
        return cls(arrays, _distinct_readings(predictions.readings(), arrays))

    @property
    def predicted(self) -> NDArray[np.integer]:
        """Predicted classes (N,) of the method's own reading."""
        return self.arrays["probabilities"].argmax(-1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is the label (N,)."""
        return self.predicted == self.arrays["label"]


def _problem(arrays: Mapping[str, NDArray], classes: int) -> str:
    """Return why the arrays cannot be used; empty if they can."""
    if missing := [name for name in REQUIRED_ARRAYS if name not in arrays]:
        return f"lacks {', '.join(missing)}"
    if not len(arrays["path"]):
        return "holds no test image"
    for name, array in arrays.items():
        if name.endswith("probabilities") and array.shape[-1] != classes:
            return f"{name} of shape {array.shape}, but results.json names {classes} classes"
        if name.endswith(("probabilities", "uncertainty")) and not np.isfinite(array).all():
            return f"{name} holds NaN or infinity"
    labels = arrays["label"]
    if labels.min() < 0 or labels.max() >= classes:
        return f"labels must be in [0, {classes}), got {labels.min()} .. {labels.max()}"
    return ""


def _distinct_readings(
    names: Sequence[str], arrays: Mapping[str, NDArray]
) -> dict[str, tuple[NDArray, NDArray]]:
    """Return the distinct readings by name; the first one equals the method's own."""
    own = arrays["probabilities"], arrays["uncertainty"]
    others = {
        name: (arrays[f"{name}/probabilities"], arrays[f"{name}/uncertainty"])
        for name in names
        if f"{name}/uncertainty" in arrays
    }
    same = [name for name, pair in others.items() if all(map(np.array_equal, pair, own))]
    first = same[0] if same else "own reading"
    return {first: own, **{name: pair for name, pair in others.items() if name not in same}}


@dataclass(frozen=True, eq=False)
class StudyRun:
    """One result: a training or an evaluation."""

    method: str
    result: Result
    file: Path
    """Path of results.json."""
    other_half: Path | None = None
    """Path of results.json of the other half of a base-to-novel run."""
    anchor: str = ""
    """Id of the run's section in the page."""

    @property
    def folder(self) -> Path:
        """Folder of the run's files."""
        return self.file.parent

    @property
    def group(self) -> tuple[str, str, str]:
        """Protocol, data and method, which are the same for all seeds and parts."""
        trained = self.result.trained()
        data = self.result.dataset
        if trained["dataset"] != data:
            data += f" from {trained['dataset']}"
        if trained["shots"] > 0:
            data += f", {shots_name(trained['shots'])}"
        return PROTOCOL_TITLES.get(protocol_of(self.result), "No protocol"), data, self.method

    @property
    def part(self) -> str:
        """The classes or domains that were tested; empty for all."""
        result = self.result
        half = "" if result.subsample_classes == "all" else f"{result.subsample_classes} classes"
        return " ".join(filter(None, [half, *result.target_domains]))

    @property
    def title(self) -> str:
        """Name of the run in its group: the part and the seed."""
        return " · ".join(filter(None, [self.part, f"seed {self.result.seed}"]))

    @property
    def name(self) -> str:
        """Group and title in one line."""
        return " · ".join([*self.group, self.title])

    def answers(self) -> Answers:
        """Read the predictions, which are not cached: those of a study may not fit in memory.

        Raises:
            ValueError: they cannot be used; names the file.
        """
        return Answers.read(self.folder / PREDICTIONS_FILE, self.result)


@dataclass(frozen=True, eq=False)
class Study:
    """All results below a folder."""

    root: Path
    runs: Sequence[StudyRun]
    table: pd.DataFrame
    """The runs as `causalclip.report.runs.run_table` returns them."""
    problems: Sequence[str]
    """Messages on files that could not be read or used."""
    broken: frozenset[Path] = field(default_factory=frozenset)
    """results.json files whose predictions cannot be used."""

    @classmethod
    def read(cls, root: Path) -> Study:
        """Read all results below a folder; those that cannot be read are named in `problems`.

        Raises:
            ValueError: no folder, or no result in it that can be read; says what is missing.
        """
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder")
        problems: list[str] = []
        results = load_results(root, problems)
        table = run_table(results)
        for rows, message in list(class_mismatches(table[table.counted]) if len(table) else ()):
            problems.append(message)
            table = table.drop(rows)
        if table.empty:
            raise ValueError("\n".join([f"no finished runs below {root}", *problems]))
        runs, broken = _sorted_runs(table, results), {}
        for run in runs:
            try:
                run.answers()
            except ValueError as error:
                broken[run.file] = str(error)
        return cls(root, runs, table, [*problems, *broken.values()], frozenset(broken))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every protocol's scores."""
        return scores(self.table, without=self.broken)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each method, which determines its colour in every figure."""
        methods = dict.fromkeys(self.table["method"][self.table.variant == ""])
        return {method: number for number, method in enumerate(methods)}

    def run_of(self, file: Path) -> StudyRun:
        """Return the run of a results.json."""
        return next(run for run in self.runs if run.file == file)


def _sorted_runs(table: pd.DataFrame, results: Mapping[Path, Result]) -> list[StudyRun]:
    own = table[table.variant == ""]
    halves = own[own.protocol == "base2new"].groupby(PAIR)["path"]
    pairs = [list(paths) for _, paths in halves if len(paths) == 2]
    others = {path: other for a, b in pairs for path, other in ((a, b), (b, a))}
    runs = [
        StudyRun(method, results[path], path, others.get(path))
        for method, path in zip(own["method"], own["path"], strict=True)
    ]
    order = [*PROTOCOL_TITLES.values(), "No protocol"]
    runs.sort(key=lambda run: (order.index(run.group[0]), *run.group[1:], run.title))
    return [replace(run, anchor=f"run{number}") for number, run in enumerate(runs, start=1)]
