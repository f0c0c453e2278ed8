"""A folder of results as the page reads it: what is there, and what could not be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from causalclip.page.answers import Answers
from causalclip.report.predictions import PREDICTIONS_FILE
from causalclip.report.protocols import PROTOCOLS
from causalclip.report.results import RESULTS_FILE, Result
from causalclip.report.runs import of_other_classes, table_of
from causalclip.report.summarize import warnings
from causalclip.report.tables import scores, shots_name

PAIR = ["method", "backbone", "config", "dataset", "shots", "seed"]
"""What both halves of a base-to-novel run share."""


@dataclass(frozen=True, eq=False)
class Run:
    """One result: a training or an evaluation."""

    number: int
    method: str
    result: Result
    file: Path
    """Its results.json."""
    other_half: Path | None = None
    """results.json of the other half of a base-to-novel run."""

    @property
    def anchor(self) -> str:
        """Its name in the page."""
        return f"run{self.number}"

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.file.parent

    @property
    def part(self) -> str:
        """Which part of its protocol it is: `base`, `new`, a domain, or the data set's name."""
        result = self.result
        subset = "" if result.subsample_classes == "all" else f"{result.subsample_classes} classes"
        return " ".join(filter(None, [subset, " ".join(result.target_domains)]))

    @property
    def group(self) -> tuple[str, str, str]:
        """Protocol, data and method: what its seeds and parts share."""
        trained = self.result.trained()
        data = self.result.dataset
        if trained["dataset"] != data:
            data += f" from {trained['dataset']}"
        if trained["shots"] > 0:
            data += f", {shots_name(trained['shots'])}"
        return PROTOCOLS.get(self.result.protocol, "No protocol"), data, self.method

    @property
    def title(self) -> str:
        """What tells it from the others of its group."""
        return " · ".join(filter(None, [self.part, f"seed {self.result.seed}"]))

    @property
    def name(self) -> str:
        """In one line."""
        return " · ".join([*self.group, self.title])

    def answers(self) -> Answers:
        """Its predictions, read anew each time: those of a study need not fit in memory.

        Raises:
            ValueError: they cannot be used; names the file.
        """
        return Answers.read(self.folder / PREDICTIONS_FILE, self.result)


@dataclass(frozen=True, eq=False)
class Study:
    """Everything below a folder."""

    root: Path
    runs: Sequence[Run]
    table: pd.DataFrame
    """The runs as `causalclip.report.runs.table_of` gives them."""
    problems: Sequence[str]
    """What could not be read or used, with names."""
    broken: frozenset[Path] = field(default_factory=frozenset)
    """results.json files whose predictions cannot be used."""

    @classmethod
    def read(cls, root: Path) -> Study:
        """Read what can be read; the rest is named in `problems`.

        Raises:
            ValueError: no folder, or nothing in it that can be read; says what is missing.
        """
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder")
        results, problems = _results(root)
        table = table_of(results)
        for rows, message in list(of_other_classes(table)):
            problems.append(message)
            table = table.drop(rows)
        if table.empty:
            raise ValueError("\n".join([f"no finished runs below {root}", *problems]))
        runs = _runs(table, results)
        broken = {run.file: problem for run in runs if (problem := _unreadable(run))}
        return cls(root, runs, table, [*problems, *broken.values()], frozenset(broken))

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Every protocol's scores."""
        return scores(self.table, without=self.broken)

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before trusting a mean."""
        return warnings(self.table)

    def of_file(self, file: Path) -> Run:
        """The run of a results.json."""
        return next(run for run in self.runs if run.file == file)


def _results(root: Path) -> tuple[dict[Path, Result], list[str]]:
    """The results that can be read, and what is wrong with the others."""
    results, problems = {}, []
    for path in sorted(root.rglob(RESULTS_FILE)):
        try:
            results[path] = Result.read(path)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return results, problems


def _runs(table: pd.DataFrame, results: dict[Path, Result]) -> list[Run]:
    own = table[table.variant == ""]
    others = _other_halves(own)
    runs = [
        Run(0, method, results[path], path, others.get(path))
        for method, path in zip(own["method"], own["path"], strict=True)
    ]
    order = {name: place for place, name in enumerate(PROTOCOLS.values())}
    runs.sort(key=lambda run: (order.get(run.group[0], 99), *run.group[1:], run.title))
    return [
        Run(number, run.method, run.result, run.file, run.other_half)
        for number, run in enumerate(runs, start=1)
    ]


def _other_halves(own: pd.DataFrame) -> dict[Path, Path]:
    halves = own[own.protocol == "base2new"]
    pairs = [list(part["path"]) for _, part in halves.groupby(PAIR) if len(part) == 2]
    return {path: other for a, b in pairs for path, other in ((a, b), (b, a))}


def _unreadable(run: Run) -> str:
    try:
        run.answers()
    except ValueError as error:
        return str(error)
    return ""
