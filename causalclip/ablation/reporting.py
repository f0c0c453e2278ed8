"""The tables of an ablation, printed and written, and its figures."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from causalclip.ablation.planning import Row
from causalclip.ablation.variants import Ablation, Table
from causalclip.report.seeds import over_seeds
from causalclip.report.summarize import render
from causalclip.runs.identity import has_result
from causalclip.runs.plan import Run

SPLITS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Report:
    """Where the tables and figures of an ablation go, and what they say of themselves."""

    ablation: Ablation
    place: str
    """Method and data, for the headings."""
    split: str
    folder: Path

    def table(self, name: str, rows: Sequence[Row]) -> bool:
        """Print and write a table, or draw a figure; whether every row has its results."""
        table = self.ablation.tables[name]
        done = [Row(row.variant, finished(row)) for row in rows]
        done = [row for row in done if row.runs]
        for row in rows:
            if row.variant not in [other.variant for other in done]:
                print(f"{table.title}: no result of {row.variant.name}")
        if done and table.figure:
            self._draw(table, done)
        elif done:
            self._write(name, table, done)
        return len(done) == len(rows)

    def heading(self, table: Table) -> str:
        """What the table shows, of what, and on which images."""
        note = self.ablation.note[self.split]
        return f"{table.title}: {self.place}, {SPLITS[self.split]} split ({note})"

    def _write(self, name: str, table: Table, rows: Sequence[Row]) -> None:
        found = scored(rows, loaded(self.ablation.measure), self.split, table.columns)
        made = over_seeds(found).rename(columns={"method": "variant"})
        titled = [(self.heading(table), made)]
        text = render(titled, "markdown", "sd")
        print(text)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.md").write_text(text.lstrip() + "\n", encoding="utf-8")
        data = render(titled, "json", "sd")
        (self.folder / f"{name}.json").write_text(data + "\n", encoding="utf-8")

    def _draw(self, table: Table, rows: Sequence[Row]) -> None:
        from causalclip.ablation.figure_style import save, styled

        with styled():
            for name, figure in loaded(table.figure)(rows, self.split).items():
                # two lines: a column's width holds no more
                figure.suptitle(f"{table.title}\n{self.place}, {SPLITS[self.split]} split")
                for path in save(figure, self.folder, name):
                    print(f"wrote {path}")


def finished(row: Row) -> tuple[Run, ...]:
    """The runs of those seeds that have all their results."""
    seeds = by_seed(row.runs).values()
    whole = [runs for runs in seeds if all(has_result(run.folder) for run in runs)]
    return tuple(run for runs in whole for run in runs)


def by_seed(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """The runs of each seed: their folders end in it."""
    found: dict[int, list[Run]] = {}
    for run in runs:
        found.setdefault(int(run.folder.name.removeprefix("seed")), []).append(run)
    return found


Measure = Callable[[Sequence[Run], str, str], Mapping[str, float]]


def scored(
    rows: Sequence[Row], measure: Measure, split: str, columns: Sequence[str]
) -> pd.DataFrame:
    """One score a line, as `over_seeds` takes them: the columns of every row and seed."""
    lines = []
    for row in rows:
        for seed, runs in by_seed(row.runs).items():
            found = measure(runs, row.variant.reading, split)
            lines += [
                {"method": row.variant.name, "seed": seed, "quantity": name, "value": found[name]}
                for name in columns
                if name in found
            ]
    return pd.DataFrame(lines, columns=["method", "seed", "quantity", "value"])


def loaded(name: str) -> Callable:
    """The function MODULE:FUNCTION, imported when it is needed."""
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)
