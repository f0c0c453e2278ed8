"""A study on the page: the protocols with their tables, comparisons and published figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from causalclip.page.figures import study_figures
from causalclip.page.run_view import drawing
from causalclip.page.study import Study, StudyRun
from causalclip.page.tables import Link, PageCell, PageTable, plain_table, score_table, without_best
from causalclip.plots.style import PALETTE
from causalclip.records.results import PROTOCOL_TITLES
from causalclip.report.published_figures import compare_with_published
from causalclip.report.seeds import compare_methods, holm
from causalclip.report.tables import result_tables, shots_name

MOST_PAIRS = 6
"""Maximum number of methods compared in all pairs; of more, the best one with each other."""
SEEDS_NOTE = (
    "Mean ± standard deviation over seeds; with several seeds the 95 % interval on hover and in "
    "the figure. The best method of each column is bold and marked ★; other readings of a method "
    "are folded below it and are not compared."
)
PAIRS_NOTE = (
    "Difference: first minus second method, points. p: two-sided Wilcoxon signed-rank test; p "
    "(Holm): corrected for the number of rows with the same pairs; smallest p: the smallest that "
    "this number of pairs can give, uncorrected. Seeds of one data set are not independent: prefer "
    "the rows over data sets."
)


# Protocols


def protocol_views(study: Study) -> Iterator[dict[str, Any]]:
    """Yield the sections of the protocols that have scores, in the order of `PROTOCOL_TITLES`."""
    for name, title in PROTOCOL_TITLES.items():
        scores = study.scores[study.scores.protocol == name]
        if len(scores):
            figures = (plot for plot in study_figures(study, scores) if plot.kind != "overview")
            yield {
                "name": name,
                "title": title,
                "tables": list(_score_tables(study, scores, name)),
                "drawings": [drawing(p, f"{name}-{k}") for k, p in enumerate(figures)],
                "comparison": _comparison(scores),
                "published": list(_published(scores)),
            }


def _score_tables(study: Study, scores: pd.DataFrame, protocol: str) -> Iterator[PageTable]:
    other = scores[scores.variant != ""]
    readings = dict(result_tables(other))
    parents = {
        method: str(method).replace(f", {variant}", "", 1)
        for method, variant in zip(other["method"], other["variant"], strict=True)
    }
    for title, table in result_tables(scores[scores.variant == ""]):
        # In the average over data sets, the first column is the shots.
        table.insert(0, "method", table.pop("method"))
        note = SEEDS_NOTE if "seeds" in table else "Means over data sets of the means over seeds."
        domains = protocol == "lodo"
        note += " ▼ marks the domain on which a method is worst." if domains else ""
        link = _links(study, scores[scores.table == title])
        shown = score_table(title, table, link=link, domains=domains, note=note)
        folded: dict[str, list[Sequence[PageCell]]] = {}
        if title in readings:
            for row in score_table(title, readings[title].reindex(columns=table.columns)).rows:
                folded.setdefault(parents[str(row[0].value)], []).append(without_best(row))
        rows = [[with_colour(study, row[0]), *row[1:]] for row in shown.rows]
        yield replace(shown, rows=rows, readings=folded)


def _links(study: Study, rows: pd.DataFrame) -> Link:
    """Return a function that links a score to its run, or to the table of runs for several runs."""

    def link(method: str, column: str) -> tuple[str, str]:
        files = _files(study.table, rows[rows.method == method], column)
        if len(files) == 1:
            return f"#{study.run_of(files[0]).anchor}", ""
        return ("#runs", method) if files else ("", "")

    return link


def _files(table: pd.DataFrame, rows: pd.DataFrame, column: str) -> list[Path]:
    """Return the results.json files behind a cell; `rows` are its method's scores."""
    if rows.empty:
        return []
    first = rows.iloc[0]
    runs = table[(table.method == first.method) & (table.protocol == first.protocol)]
    runs = runs[runs.dataset.isin(rows.dataset)]
    if first.protocol != "fewshot":
        runs = runs[runs.shots == first.shots]
    half = column.split(" ")[-1]
    narrow = {
        "subsample": half if half in ("base", "new") and first.protocol == "base2new" else "",
        "domain": column if column in set(table.domain) else "",
        "dataset": column if column in set(table.dataset) else "",
    }
    for name, value in narrow.items():
        runs = runs[runs[name] == value] if value else runs
    shots = runs[[shots_name(k) == column for k in runs.shots]]
    return list(shots["path"] if len(shots) else runs["path"])


def _comparison(scores: pd.DataFrame) -> PageTable | None:
    """Return the paired comparison of the methods' own readings (see `MOST_PAIRS`).

    Return None if no two methods have a result in common.
    """
    own = scores[(scores.variant == "") & (scores.compared != "")]
    methods = list(dict.fromkeys(own.method))
    pairs = list(combinations(methods, 2))
    if len(methods) > MOST_PAIRS:
        last = own[own.compared == own.compared.iloc[-1]]  # HM, or accuracy
        best = last.groupby("method", sort=False)["value"].mean().idxmax()
        pairs = [(best, other) for other in methods if other != best]
    rows = [row for first, second in pairs for row in _compared(own, first, second)]
    if not rows:
        return None
    for pairs in dict.fromkeys(row[2] for row in rows):
        same = [row for row in rows if row[2] == pairs]
        for row, p in zip(same, holm([row[-1] for row in same]), strict=True):
            row[-2:] = [PageCell(f"{v:.2g}", v) for v in (row[-1], p, row[-2])]
    columns = "methods quantity pairs n wins ties losses difference p".split()
    columns += ["p (Holm)", "smallest p"]
    return replace(plain_table("Paired comparison", columns, rows), note=PAIRS_NOTE)


def _compared(scores: pd.DataFrame, first: str, second: str) -> Iterator[list]:
    try:
        tests = compare_methods(scores, first, second)
    except ValueError:  # the two have no result in common
        return
    for row in tests[(tests.pairs != "data sets") | (tests.n > 1)].to_dict("records"):
        difference = row["mean difference"]
        yield [
            f"{first} \N{MINUS SIGN} {second}",
            *(row[name] for name in ("quantity", "pairs", "n", "wins", "ties", "losses")),
            PageCell(f"{difference:+.2f}", difference),
            row["smallest p"],
            row["p"],
        ]


def _published(scores: pd.DataFrame) -> Iterator[PageTable]:
    """Yield our results next to the published figures, if any is on the same data."""
    note = "Mean over seeds; difference is ours minus published."
    for title, table in compare_with_published(scores):
        if len(ours := table[table["ours"].notna()]):
            yield score_table(title, ours, note=note)


# Runs


def runs_table(study: Study) -> PageTable:
    """Return a table with a row per run, which links to the run's section."""
    columns = "method data part seed accuracy ECE".split()
    columns += ["training s", "memory MiB", "finished"]
    table = plain_table("Runs", columns, [_run_row(study, run) for run in study.runs])
    return replace(table, note=_own_data(study))


def _own_data(study: Study) -> str:
    """Return the locations of the user's own data sets; empty if there are none."""
    places = {}
    for run in study.runs:
        settings = run.result.config.get("DATASET", {})
        if name := settings.get("TITLE"):
            inside = settings.get("TABLE") or settings.get("PATH") or ""
            places[name] = str(Path(settings.get("ROOT", ""), inside))
    return "; ".join(f"{name}: {place}" for name, place in places.items())


def _run_row(study: Study, run: StudyRun) -> list:
    result, cost = run.result, run.result.training or {}
    protocol, data, method = run.group
    numbers = [result.metrics.get(key) for key in ("accuracy", "ece")]
    numbers += [cost.get(key) for key in ("seconds", "peak_memory_mb")]
    return [
        replace(with_colour(study, PageCell(method, method)), link=f"#{run.anchor}"),
        data,
        " ".join(filter(None, [protocol, run.part])),
        result.seed,
        *(
            PageCell("-" if n is None else f"{n:,.1f}", float("nan" if n is None else n))
            for n in numbers
        ),
        _minute(result.time),
    ]


def with_colour(study: Study, cell: PageCell) -> PageCell:
    """Return a cell with the colour of the method that it names."""
    number = study.numbers.get(str(cell.value))
    return cell if number is None else replace(cell, colour=PALETTE[number % len(PALETTE)])


def first_and_last_time(study: Study) -> list[str]:
    """Return when the first and the last result was written; one time if they are the same."""
    times = sorted(_minute(run.result.time) for run in study.runs)
    return list(dict.fromkeys([times[0], times[-1]]))


def _minute(time: str) -> str:
    """Return an ISO time, which runs write in UTC, as in 2026-11-23 20:16."""
    return time[:16].replace("T", " ")
