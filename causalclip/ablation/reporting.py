"""Print and write the tables of an ablation, and draw its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from causalclip.ablation.tables import Ablation, Row, Table
from causalclip.records.identity import has_result
from causalclip.report.formats import format_tables
from causalclip.report.seeds import over_seeds
from causalclip.runs.plan import Run

SPLITS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Report:
    """Writes the results of an ablation to files and prints them."""

    ablation: Ablation
    subject: str
    """Method and data, as shown in the headings."""
    split: str
    folder: Path

    def table(self, name: str, rows: Sequence[Row]) -> bool:
        """Print and write a table, or draw a figure; return whether every row has its results."""
        table = self.ablation.tables[name]
        done = [Row(row.variant, finished(row)) for row in rows]
        for row in done:
            if not row.runs:
                print(f"{table.title}: no result of {row.variant.name}")
        if complete := [row for row in done if row.runs]:
            (self._draw if table.figure else self._write)(name, table, complete)
        return len(complete) == len(rows)

    def _write(self, name: str, table: Table, rows: Sequence[Row]) -> None:
        found = scored(rows, self.ablation.function("quantities"), self.split, table.columns)
        heading = f"{table.title}: {self.subject}, {SPLITS[self.split]} split"
        heading += f" ({self.ablation.notes[self.split]})"
        titled = [(heading, over_seeds(found).rename(columns={"method": "variant"}))]
        text = format_tables(titled, "markdown")
        print(text)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.md").write_text(text.lstrip() + "\n", encoding="utf-8")
        data = format_tables(titled, "json")
        (self.folder / f"{name}.json").write_text(data + "\n", encoding="utf-8")

    def _draw(self, _name: str, table: Table, rows: Sequence[Row]) -> None:
        from matplotlib import rc_context

        from causalclip.plots.style import PRINT_STYLE, save_figure

        with rc_context({**PRINT_STYLE, "savefig.dpi": 150}):
            figures = self.ablation.function(table.figure)(rows, self.split)
            for name, figure in figures.items():
                # two lines: one would be wider than a column
                figure.suptitle(f"{table.title}\n{self.subject}, {SPLITS[self.split]} split")
                for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
                    path = self.folder / f"{name}.{suffix}"
                    save_figure(figure, path, metadata=metadata)
                    print(f"wrote {path}")


def finished(row: Row) -> tuple[Run, ...]:
    """Return the runs of the seeds that have all their results."""
    seeds = by_seed(row.runs).values()
    complete = [runs for runs in seeds if all(has_result(run.folder) for run in runs)]
    return tuple(run for runs in complete for run in runs)


def by_seed(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """Return the runs by seed, which is in the name of their folders."""
    seeds: dict[int, list[Run]] = {}
    for run in runs:
        seeds.setdefault(int(run.folder.name.removeprefix("seed")), []).append(run)
    return seeds


def scored(
    rows: Sequence[Row],
    measure: Callable[[Sequence[Run], str, str], Mapping[str, float]],
    split: str,
    columns: Sequence[str],
) -> pd.DataFrame:
    """Return the scores of every row and seed in `columns`, one per line, for `over_seeds`."""
    lines = []
    for row in rows:
        for seed, runs in by_seed(row.runs).items():
            values = measure(runs, row.variant.reading, split)
            lines += [
                (row.variant.name, seed, name, values[name]) for name in columns if name in values
            ]
    return pd.DataFrame(lines, columns=["method", "seed", "quantity", "value"])
