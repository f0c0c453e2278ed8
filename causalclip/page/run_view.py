"""One run as the page shows it: facts, settings, tables and figures."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from causalclip.page.chart import chart
from causalclip.page.figures import MATRIX_CLASSES, Plot, confusion, run_figures, run_heads
from causalclip.page.study import Answers, Study, StudyRun
from causalclip.page.tables import PageCell, PageTable, metric_table, plain_table
from causalclip.plots.panels import draw_panels
from causalclip.plots.run_plots import choice_grid
from causalclip.plots.style import inline_svg
from causalclip.records.results import Result
from causalclip.report.runs import RunSettings, relevant_settings
from causalclip.report.tables import shots_name
from causalclip.runs.recipes import CONFIGS
from causalclip.settings.check import flatten
from causalclip.settings.config_file import read_config

WIDE = 4.5
"""Width in inches above which a figure takes two of the page's columns."""
PIXELS = 80
"""Pixels per inch of a chart."""
IN_TABLES = ("confusion", "templates", "energy", "choice", "angles")
"""Kinds of figures that the page replaces with tables."""
DOTTED_KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+")
COST_UNITS = {
    "seconds": "s",
    "epochs": "epochs",
    "steps": "steps",
    "images": "images",
    "learnable_parameters": "learnable parameters",
    "peak_memory_mb": "MiB at most",
    "step_gflops": "GFLOPs a step",
}
"""Units of the keys of `training` in results.json; GFLOPs are computed from its FLOPs."""
ANGLES = ("resamples", "angle_50", "angle_95", "bound")


def run_view(study: Study, run: StudyRun, answers: Answers | None) -> dict[str, Any]:
    """Return a run's section of the page; `answers` is None if its predictions cannot be read."""
    skipped = _skipped(study, run)
    figures = enumerate(f for f in run_figures(study, run, answers) if f.kind not in skipped)
    settings = sorted(relevant_settings(run.result).items())
    return {
        "run": run,
        "facts": run_facts(run),
        "differences": recipe_differences(run.result),
        "settings": [(key, value_text(value)) for key, value in settings],
        "tables": list(_tables(run, answers)),
        "drawings": [drawing(figure, f"{run.anchor}-{number}") for number, figure in figures],
        "pictured": answers is not None,
    }


def _skipped(study: Study, run: StudyRun) -> list[str]:
    """Return the kinds of figures not to draw: tables or the section of the base half show them."""
    second = run.other_half is not None and run.result.subsample_classes == "new"
    second = second and run.other_half not in study.broken
    return [*IN_TABLES, *(["uncertainty"] * second)]


def drawing(plot: Plot, name: str) -> dict[str, Any]:
    """Return a figure as an element of the page; `name` must be unique in the page."""
    label = f"{plot.caption}; {plot.title}"
    shown = {"title": plot.title, "caption": plot.caption, "wide": plot.width > WIDE}
    if plot.draw is draw_panels:
        size = {"height": PIXELS * plot.size(plot.width)[1], "first": plot.first}
        return shown | {"chart": chart(*plot.data, label=label, **size)}
    svg = inline_svg(plot.draw, *plot.data, label=label, name=name, size=plot.size(plot.width))
    return shown | {"svg": Markup(svg)}


# Settings


def recipe_differences(result: Result) -> list[tuple[str, str, str]]:
    """Return (key, recipe's value, run's value) of each relevant setting that differs.

    Only keys in the recipe's installed files or on the run's command line are compared.
    """
    recipe, own = _recipe(result.trainer, result.config_name or ""), relevant_settings(result)
    given = [word for word in result.command[:-1] if DOTTED_KEY.fullmatch(word)]
    rows = [
        (key, value_text(recipe.get(key, "not in the recipe")), value_text(own[key]))
        for key in dict.fromkeys([*recipe, *given])
        if key in own
    ]
    return [row for row in rows if row[1] != row[2]]


@cache
def _recipe(trainer: str, config_name: str) -> RunSettings:
    settings: RunSettings = {}
    for name in config_name.split("+"):
        path = CONFIGS / "trainers" / trainer / f"{name}.yaml"
        inside = path.resolve().parent.parent == (CONFIGS / "trainers").resolve()
        if name and inside and path.is_file():  # results.json may name any file
            settings |= dict(flatten(read_config(path)))
    return settings


def value_text(value: object) -> str:
    """Return a value as text; a tuple in YAML and the same list in JSON give the same text."""
    if isinstance(value, str) and re.fullmatch(r"\(.*\)", value):
        return f"[{value[1:-1].strip().rstrip(',')}]"
    if isinstance(value, float) or re.fullmatch(r"-?[\d.]+e-?\d+", str(value)):
        return f"{float(str(value)):g}"  # YAML 1.1 reads 1e-5 as text
    return str(value)


# Facts


def run_facts(run: StudyRun) -> list[tuple[str, str]]:
    """Return (name, text) pairs: what was run, when, with which versions, and its cost."""
    result, trained = run.result, run.result.trained_on
    training, evaluation = result.training or {}, result.evaluation
    numbers = {k: v for k, v in result.details.items() if isinstance(v, (int, float))}
    amounts = {**training, "step_gflops": (training.get("step_flops") or 0) / 1e9}
    cost = {unit: amounts[key] for key, unit in COST_UNITS.items() if amounts.get(key)}
    resumed = training.get("resumed_from_epoch")
    tested = f"{evaluation.get('seconds', 0):.3g} s, {evaluation.get('images', 0):g} images"
    facts = {
        "method": result.trainer,
        "configuration": result.config_name or "not recorded",
        "backbone": result.backbone,
        "data": f"{result.dataset}, {result.split} images",
        "source domains": " ".join(result.source_domains),
        "target domains": " ".join(result.target_domains),
        "trained on": f"{trained['dataset']}, {shots_name(trained['shots'])}" if trained else "",
        "finished": result.time,
        "training": ", ".join(f"{round(value, 2):,.10g} {unit}" for unit, value in cost.items()),
        "resumed": f"after epoch {resumed}; the seconds count from there" if resumed else "",
        "evaluation": tested if evaluation else "",
        "numbers of the method": ", ".join(f"{name} {v:.4g}" for name, v in numbers.items()),
        "versions": ", ".join(f"{name} {v}" for name, v in result.versions.items() if v),
        "command": " ".join([*result.command[:1], shlex.join(result.command[1:])]),
        "folder": str(run.folder),
    }
    return [(name, text) for name, text in facts.items() if text]


# Tables


def _tables(run: StudyRun, answers: Answers | None) -> Iterator[PageTable]:
    """Yield tables of the readings, parts and members, of CLIP-ICM's subspaces and the classes."""
    result = run.result
    yield metric_table("Readings", {"own reading": result.metrics, **result.variants})
    if result.parts:
        yield metric_table("Parts of the test images", result.parts)
    for name, members in result.members.items():
        rows = {f"{name} {number}": metrics for number, metrics in enumerate(members, start=1)}
        yield metric_table(f"Each {name} alone", rows)
    yield from _icm_tables(run)
    if answers is not None:
        yield class_table(result.classnames, confusion(run, answers))


def _icm_tables(run: StudyRun) -> Iterator[PageTable]:
    """Yield tables of the chosen subspaces, their grids, and the angles of resampled subspaces."""
    choices, angles = [], []
    for name, head in run_heads(run).items():
        chosen = (head["choice"][key] for key in ("estimator", "strength", "dim_inv"))
        kept = (head[f"{kind}_energy_kept"] for kind in ("feature", "intervention"))
        choices.append([name, *chosen, *(round(100 * share, 1) for share in kept)])
        if "certainty" in head:
            values = [head["certainty"].get(key) for key in ANGLES]
            angles.append([name, *("-" if v is None else round(v, 1) for v in values)])
    if choices:
        columns = ["reading", "estimator", "strength", "kept", "features kept %", "change kept %"]
        yield plain_table("Subspaces", columns, choices)
    yield from (choice_table(n, head) for n, head in run_heads(run).items() if head["grid"])
    if angles:
        yield plain_table("Angles of resampled subspaces, degrees", ["reading", *ANGLES], angles)


def choice_table(name: str, head: Mapping[str, Any]) -> PageTable:
    """Return the accuracy of every cell of a subspace's grid, the chosen one marked as the best."""
    grid, choice = choice_grid(head["grid"]), head["choice"]
    low: Any = grid.min(axis=None)
    tints = ((grid - low) / (grid.max(axis=None) - low)).fillna(0)
    chosen = tuple(choice[key] for key in ("estimator", "strength", "dim_inv"))
    rows = []
    for cell, values, shares in zip(list[Any](grid.index), grid.values, tints.values, strict=True):
        row = zip(grid.columns, values.tolist(), shares.tolist(), strict=True)
        rows.append(
            [*cell]
            + [
                PageCell("" if np.isnan(v) else f"{v:.1f}", v, (*cell, size) == chosen, share=share)
                for size, v, share in row
            ]
        )
    columns = ["estimator", "strength", *(f"{size} kept" for size in grid.columns)]
    title = f"{name}: accuracy on the held-out sources, %, by strength and number kept"
    return plain_table(title, columns, rows)


def class_table(names: Sequence[str], matrix: NDArray[np.int64]) -> PageTable:
    """Return the accuracy of each class of a confusion matrix (K, K), and its wrong predictions.

    For up to 20 classes, the table has the whole matrix in per cent. For more, it has only the most
    frequent wrong prediction of each class.
    """
    counts = matrix.sum(1)
    shares = matrix / np.maximum(counts, 1)[:, None]
    few = len(names) <= MATRIX_CLASSES
    wrong = matrix * (1 - np.eye(len(names), dtype=int))
    rows = []
    for k in np.flatnonzero(counts).tolist():
        row = [names[k], int(counts[k]), PageCell(f"{100 * shares[k, k]:.1f}", float(shares[k, k]))]
        worst = int(wrong[k].argmax())
        if few:
            row += [
                PageCell(f"{100 * s:.0f}" if n else "", float(s), share=float(s))
                for s, n in zip(shares[k], matrix[k], strict=True)
            ]
        else:
            row += [names[worst], int(wrong[k, worst])] if wrong[k, worst] else ["-", 0]
        rows.append(row)
    further = [f"as {name}" for name in names] if few else ["most frequent mistake", "mistakes"]
    title = "Classes: accuracy and " + ("predictions, %" if few else "most frequent mistake")
    return plain_table(title, ["class", "images", "accuracy", *further], rows)
