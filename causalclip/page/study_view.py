"""A study as the page shows it: protocols with their tables, comparisons, published figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import pandas as pd

from causalclip.page.cells import Cell, Link, Table, of_frame, of_rows
from causalclip.page.figures import study_figures
from causalclip.page.run_view import Drawing, RunView, drawing
from causalclip.page.study import Run, Study
from causalclip.report.groups import by_name
from causalclip.report.protocols import PROTOCOLS
from causalclip.report.published_figures import against
from causalclip.report.seeds import compare
from causalclip.report.summarize import tables
from causalclip.report.tables import shots_name

MOST_PAIRS = 6
"""Of more methods, the best one is compared with each: all pairs would hide what matters."""


@dataclass(frozen=True)
class ProtocolView:
    """One protocol: its tables, figures, paired comparison, and what was published."""

    name: str
    title: str
    tables: Sequence[Table]
    drawings: Sequence[Drawing]
    comparison: Table | None
    published: Sequence[Table]


@dataclass(frozen=True)
class Group:
    """The runs of one method in one place: its seeds and parts."""

    anchor: str
    title: str
    runs: Sequence[RunView]


# Protocols


def protocols(study: Study) -> Iterator[ProtocolView]:
    """The protocols that have scores, in the order of `PROTOCOLS`."""
    scores = study.scores
    for name, title in PROTOCOLS.items():
        part = scores[scores.protocol == name]
        if part.empty:
            continue
        figures = enumerate(study_figures(part))
        yield ProtocolView(
            name,
            title,
            list(_tables(study, part, name)),
            [drawing(figure, f"{name}-{number}") for number, figure in figures],
            _comparison(part),
            list(_published(part)),
        )


def _tables(study: Study, scores: pd.DataFrame, protocol: str) -> Iterator[Table]:
    for title, frame in tables(scores):
        rows = scores[scores.table == title]
        note = _note(frame)
        if protocol == "lodo":
            note += " ▼ marks the domain on which a method is worst."
        link = links(study, rows)
        yield of_frame(title, frame, link=link, lodo=protocol == "lodo", note=note)


def _note(frame: pd.DataFrame) -> str:
    if "seeds" not in frame:
        return "Means over data sets of the means over seeds."
    return (
        "Mean ± standard deviation over seeds, the 95 % interval on hover and in the figure. "
        "The best of each column is bold and marked ★."
    )


def links(study: Study, rows: pd.DataFrame) -> Link:
    """Where the cells of a table lead: to the run where it is one, else to the group of its runs.

    Args:
        study: the runs.
        rows: the table's scores.
    """
    groups = {run.file: anchor for anchor, runs in grouped(study) for run in runs}

    def link(method: str, column: str) -> str:
        files = _files(study.table, rows[rows.method == method], column)
        if len(files) == 1:
            return f"#{study.of_file(files[0]).anchor}"
        return f"#{groups[files[0]]}" if files else ""

    return link


def _files(table: pd.DataFrame, rows: pd.DataFrame, column: str) -> list:
    """The results.json files behind a cell of these scores of one method."""
    if rows.empty:
        return []
    first = rows.iloc[0]
    mine = table[(table.method == first.method) & (table.protocol == first.protocol)]
    mine = mine[mine.dataset.isin(rows.dataset)]
    if first.protocol != "fewshot":
        mine = mine[mine.shots == first.shots]
    half = column.split(" ")[-1]
    narrow = {
        "subsample": half if half in ("base", "new") and first.protocol == "base2new" else "",
        "domain": column if column in set(table.domain) else "",
        "dataset": column if column in set(table.dataset) else "",
    }
    for name, value in narrow.items():
        mine = mine[mine[name] == value] if value else mine
    shots = mine[[shots_name(k) == column for k in mine.shots]]
    return list(shots["path"] if len(shots) else mine["path"])


def _comparison(scores: pd.DataFrame) -> Table | None:
    """Every pair of methods, or of many the best against each; by their own readings."""
    own = scores[(scores.variant == "") & (scores.compared != "")]
    methods = list(dict.fromkeys(own.method))
    best = _best(own)
    pairs = list(combinations(methods, 2))
    if len(methods) > MOST_PAIRS:
        pairs = [(best, other) for other in methods if other != best]
    rows = [row for pair in pairs for row in _compared(own, *pair)]
    if not rows:
        return None
    columns = "methods quantity pairs n wins ties losses difference p".split()
    table = of_rows("Paired comparison", columns, rows)
    note = (
        "First minus second, points; p of the two-sided Wilcoxon signed-rank test, not corrected "
        "for how many are made. Seeds of one data set are not independent: rows over data sets "
        "are the stricter ones."
    )
    return Table(table.title, table.columns, table.rows, note)


def _compared(scores: pd.DataFrame, first: str, second: str) -> list[list]:
    try:
        found = compare(scores, first, second)
    except ValueError:  # the two have no result in common
        return []
    return [
        [
            f"{first} \N{MINUS SIGN} {second}",
            *(row[name] for name in ("quantity", "pairs")),
            *(int(row[name]) for name in ("n", "wins", "ties", "losses")),
            Cell(f"{row['mean difference']:+.2f}", float(row["mean difference"])),
            Cell(f"{row['p']:.2g}", float(row["p"])),
        ]
        for _, row in found.iterrows()
    ]


def _best(scores: pd.DataFrame) -> str:
    """The method with the highest mean of the last quantity that is compared: HM, or accuracy."""
    if scores.empty:
        return ""
    last = scores[scores.compared == scores.compared.iloc[-1]]
    means = {method: part["value"].mean() for method, part in by_name(last, "method")}
    return max(means, key=lambda method: means[method])


def _published(scores: pd.DataFrame) -> Iterator[Table]:
    """Ours beside the published figures, where any of ours is on the data of theirs."""
    for title, frame in against(scores):
        if frame["ours"].notna().any():
            yield of_frame(
                title, frame, note="Mean over seeds; difference is ours minus published."
            )


# Runs


def grouped(study: Study) -> Iterator[tuple[str, list[Run]]]:
    """The runs by method and place, each group with its name in the page."""
    groups = groupby(study.runs, key=lambda run: run.group)
    for number, (_, runs) in enumerate(groups, start=1):
        yield f"group{number}", list(runs)


def what_was_run(study: Study) -> Table:
    """A row a group: what, with which seeds, when, and what its training has cost."""
    rows = [_group_row(anchor, runs) for anchor, runs in grouped(study)]
    columns = ["method", "data", "protocol", "backbone", "runs", "seeds", "finished", "training s"]
    return of_rows("Methods and data", columns, rows)


def finished(study: Study) -> list[str]:
    """When the first and the last result was written, once where they are the same minute."""
    times = sorted(_minute(run.result.time) for run in study.runs)
    return list(dict.fromkeys([times[0], times[-1]]))


def _minute(time: str) -> str:
    """2026-11-23 20:16 of an ISO time, which runs write in UTC."""
    return time[:16].replace("T", " ")


def _group_row(anchor: str, runs: list[Run]) -> list:
    protocol, data, method = runs[0].group
    seeds = sorted({run.result.seed for run in runs})
    seconds = sum(run.result.training_seconds or 0.0 for run in runs)
    return [
        Cell(method, method, link=f"#{anchor}"),
        data,
        protocol,
        ", ".join(sorted({run.result.backbone for run in runs})),
        len(runs),
        ", ".join(map(str, seeds)),
        _minute(max(run.result.time for run in runs)),
        Cell(f"{seconds:,.1f}" if seconds else "-", float(seconds)),
    ]
