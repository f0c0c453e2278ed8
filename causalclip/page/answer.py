"""The summary at the top of the page: each protocol's best method, its lead and its cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from causalclip.page.study import Study
from causalclip.page.study_view import with_colour
from causalclip.page.tables import PageTable, score_table
from causalclip.records.results import PROTOCOL_TITLES
from causalclip.report.costs import MEMORY, TRAINING, run_costs, with_costs
from causalclip.report.seeds import compare_methods, half_width, holm, main_scores, over_seeds

LEVEL = 0.05
METHODS_NOTE = (
    "Mean ± standard deviation over seeds of HM (base-to-novel, open class) or of the average "
    "accuracy over data sets, domains and shots. Hover over a cell for its 95 % interval. A dash "
    "means that some results are missing. Costs are means over the runs of all protocols."
)


def answers(study: Study) -> Iterator[tuple[str, str]]:
    """Yield each protocol's name in `PROTOCOL_TITLES` and its result in a few sentences."""
    main = main_scores(study.scores)
    for protocol in dict.fromkeys(main.protocol):
        rows = main[main.protocol == protocol]
        scores = study.scores[(study.scores.protocol == protocol) & (study.scores.variant == "")]
        sentences = [_subject(scores), *_lead(rows, scores), *_cost(study, scores)]
        yield protocol, " ".join(sentences)


def _subject(scores: pd.DataFrame) -> str:
    datasets = [name for name in dict.fromkeys(scores.dataset) if name != "average"]
    data = _listed(datasets) if len(datasets) <= 3 else f"{len(datasets)} data sets"
    seeds = sorted(scores.seed.unique())
    count = scores["method"].nunique()
    return (
        f"{count} method{'s' * (count > 1)} on {data}, "
        f"seed{'s' * (len(seeds) > 1)} {_listed(list(map(str, seeds)))}."
    )


def _lead(main: pd.DataFrame, scores: pd.DataFrame) -> Iterator[str]:
    values = {name: group.to_numpy() for name, group in main.groupby("method")["value"]}
    order = sorted(map(str, values), key=lambda name: -values[name].mean())
    best, others = order[0], order[1:]
    half = half_width(values[best])
    interval = "one seed, so no interval" if pd.isna(half) else f"95 % interval ± {half:.1f}"
    by_hm = scores[scores.compared != ""].compared.iloc[-1] == "HM"
    text = f"{best} has the best HM" if by_hm else f"{best} leads with an average accuracy"
    text += f": {values[best].mean():.1f} ({interval})"
    if not others:
        yield text + "."
        return
    gap = values[best].mean() - values[others[0]].mean()
    distance = f"{gap:.1f} points above" if round(gap, 1) else "level with"
    yield f"{text}, {distance} {others[0]}."
    yield from _significance(scores, best, others)


def _significance(scores: pd.DataFrame, best: str, others: Sequence[str]) -> Iterator[str]:
    rows = scores[scores.compared == scores[scores.compared != ""].compared.iloc[-1]]
    tests = {}
    for other in others:
        try:
            compared = compare_methods(rows, best, other)
        except ValueError:  # no result in common
            continue
        over_datasets = compared.iloc[-1]
        tests[other] = compared.iloc[0] if over_datasets.n == 1 else over_datasets
    if not tests:
        return
    corrected = holm([test.p for test in tests.values()])
    names = [name for name, p in zip(tests, corrected, strict=True) if p < LEVEL]
    smallest, pairs = min((test["smallest p"], test.n) for test in tests.values())
    over = next(iter(tests.values())).pairs
    method = f"Wilcoxon signed-rank over {over}, Holm's correction"
    if names:
        rest = [name for name in tests if name not in names]
        yield f"The lead over {_listed(names)} is significant" + (
            f", the lead over {_listed(rest)} is not ({method})." if rest else f" ({method})."
        )
    elif smallest * len(tests) >= LEVEL:
        yield (
            f"No lead is significant ({method}), and none can be: with {pairs} pairs, p is at "
            f"least {smallest:.2g} before the correction."
        )
    else:
        yield f"No lead is significant ({method})."


def _cost(study: Study, scores: pd.DataFrame) -> Iterator[str]:
    costs = run_costs(study.table).dropna(subset=TRAINING)
    costs = costs[costs["method"].isin(scores["method"])]
    costs = costs[costs.protocol == scores.protocol.iloc[0]]
    if costs[TRAINING].sum() > 0:
        means = costs.groupby("method", sort=False)[TRAINING].mean()
        ends = dict.fromkeys([means.idxmin(), means.idxmax()])
        each = ", ".join(f"{name} {_duration(means[name])}" for name in ends)
        total, memory = _duration(costs[TRAINING].sum()), costs[MEMORY].max()
        yield (
            f"The {len(costs)} trainings took {total} (mean per training: {each}) "
            f"and at most {memory:,.0f} MiB of memory."
        )


def methods_table(study: Study) -> PageTable:
    """Return a table with a row per method: its main quantity in each protocol, and its costs."""
    main = main_scores(study.scores)
    order = [title for title in PROTOCOL_TITLES.values() if title in set(main.quantity)]
    columns = pd.CategoricalDtype(order)
    table = over_seeds(main.astype({"quantity": columns}).sort_values("quantity", kind="stable"))
    ((_, table),) = with_costs([("Methods", table)], study.table)
    shown = score_table("Methods", table, link=lambda m, c: ("#runs", m), note=METHODS_NOTE)
    rows = [[with_colour(study, row[0]), *row[1:]] for row in shown.rows]
    return replace(shown, rows=rows)


def _listed(names: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _duration(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
