"""Which figures a run and a study have: one list, for the page and for `causalclip plot`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalclip.metrics import risk_coverage
from causalclip.page.answers import Answers
from causalclip.page.study import Run, Study
from causalclip.report import plots_answers, plots_methods, plots_study
from causalclip.report.groups import by_name
from causalclip.report.plots_numbers import confusion, reliability
from causalclip.report.plots_style import Draw

MOST_CLASSES = 20
"""More make a matrix nobody can read: then the worst pairs stand in a table."""

MOST_ROWS = 24
"""Of more readings, a comparison shows the methods' own: the table has them all."""

KINDS = {
    "comparison": "mean and 95 % interval of each method",
    "fewshot": "accuracy by training images a class",
    "training": "loss and accuracy of each epoch",
    "reliability": "accuracy against confidence of each reading",
    "risk": "error against coverage of each reading",
    "confusion": "which classes were taken for which (up to 20 classes)",
    "uncertainty": "histograms for right, wrong and new classes",
    "templates": "CDC: accuracy of each template",
    "opinions": "CDC: histograms of each template's uncertainty",
    "conflict": "CDC: histograms of the templates' conflict, right and wrong",
    "spectrum": "CLIP-ICM: eigenvalues and what is kept",
    "energy": "CLIP-ICM: energy kept of features and interventions",
    "choice": "CLIP-ICM: accuracy of every cell of the grid, the chosen one framed",
    "angles": "CLIP-ICM: how far resampled images turn the subspace",
}
"""Every kind of figure, and what it shows."""


@dataclass(frozen=True, eq=False)
class Figure:
    """One figure that can be drawn in any size."""

    kind: str
    title: str
    """What it is of."""
    draw: Draw
    height: float = 2.4
    """Inches, where it is `width` wide."""
    width: float = 3.4
    part: str = ""
    """Which of several of its kind."""

    @property
    def caption(self) -> str:
        """What it shows."""
        return f"{KINDS[self.kind]} ({self.part})" if self.part else KINDS[self.kind]


# Of a study


def study_figures(scores: pd.DataFrame) -> Iterator[Figure]:
    """A comparison of each table that has several methods, and the few-shot curves."""
    for table, rows in by_name(scores, "table"):
        if rows["method"].nunique() > 1:
            shown = _comparable(rows)
            draw = partial(plots_study.draw_comparison, rows=shown)
            yield Figure("comparison", table, draw, plots_study.figure_height(shown), 6.9)
        few = rows[(rows.protocol == "fewshot") & (rows.shots > 0)]
        if few["shots"].nunique() > 1:
            yield Figure("fewshot", table, partial(plots_study.draw_fewshot, rows=few), 2.8, 4.2)


def _comparable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows; without other readings than the methods' own where there were too many."""
    return rows if rows["method"].nunique() <= MOST_ROWS else rows[rows.variant == ""]


# Of a run


def run_figures(study: Study, run: Run, answers: Answers | None) -> Iterator[Figure]:
    """The figures of a run; those of its answers only where they can be read."""
    curve = (run.result.training or {}).get("curve")
    if curve and curve["epoch"]:
        draw = partial(plots_answers.draw_training, curve=curve)
        yield Figure("training", run.name, draw, 3.0)
    if answers is not None:
        yield from _of_answers(study, run, answers)
    yield from _of_templates(run, answers)
    yield from _of_subspaces(run)


def _of_answers(study: Study, run: Run, answers: Answers) -> Iterator[Figure]:
    bins = {name: reliability(p, answers.labels) for name, (p, _) in answers.readings.items()}
    yield Figure(
        "reliability", run.name, partial(plots_answers.draw_reliability, readings=bins), 3.0
    )
    risks = {
        name: risk_coverage(u, p.argmax(-1) == answers.labels)
        for name, (p, u) in answers.readings.items()
    }
    yield Figure("risk", run.name, partial(plots_answers.draw_risk_coverage, readings=risks))
    groups = uncertainty_groups(study, run, answers)
    yield Figure("uncertainty", run.name, partial(plots_answers.draw_uncertainty, groups=groups))
    names = run.result.classnames
    if len(names) <= MOST_CLASSES:
        matrix = confusion(answers.labels, answers.predicted, classes=len(names))
        draw = partial(plots_answers.draw_confusion, matrix=matrix, names=names)
        yield Figure("confusion", run.name, draw, 1.4 + 0.17 * len(names), 1.6 + 0.17 * len(names))


def _of_templates(run: Run, answers: Answers | None) -> Iterator[Figure]:
    members = run.result.members.get("template")
    if members:
        fused = run.result.metrics["accuracy"]
        draw = partial(plots_methods.draw_templates, members=members, fused=fused)
        yield Figure("templates", run.name, draw)
    if answers is not None and answers.opinions is not None:
        each = {f"S{number}": u for number, u in enumerate(answers.opinions.T, start=1)}
        draw = partial(plots_answers.draw_uncertainty, groups=each)
        yield Figure("opinions", run.name, draw)
    if answers is not None and answers.conflict is not None:
        groups = split(answers.conflict, answers.right)
        draw = partial(plots_answers.draw_uncertainty, groups=groups, label="conflict")
        yield Figure("conflict", run.name, draw)


def _of_subspaces(run: Run) -> Iterator[Figure]:
    heads = subspaces(run)
    if not heads:
        return
    yield Figure("spectrum", run.name, partial(plots_methods.draw_spectrum, heads=heads))
    energy = partial(plots_methods.draw_energy, heads=heads)
    yield Figure("energy", run.name, energy, 0.9 + 0.45 * len(heads))
    for name, head in heads.items():
        if head["grid"]:
            draw = partial(plots_methods.draw_choice, grid=head["grid"], chosen=head["choice"])
            yield Figure("choice", f"{run.name} · {name}", draw, 2.6, 5.2, name)
    certain = {name: head for name, head in heads.items() if "certainty" in head}
    if certain:
        angles = partial(plots_methods.draw_angles, heads=certain)
        yield Figure("angles", run.name, angles, 0.8 + 0.3 * len(certain))


def subspaces(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """What results.json says of CLIP-ICM's subspaces; none where an older one lacks the spectrum.

    `details` are any method's own: only those that look like CLIP-ICM's are taken for them.
    """
    heads = run.result.details.get("heads")
    if not isinstance(heads, dict):
        return {}
    needed = {"choice", "grid", "spectrum", "feature_energy_kept", "intervention_energy_kept"}
    return {
        name: head for name, head in heads.items() if isinstance(head, dict) and needed <= set(head)
    }


def uncertainty_groups(study: Study, run: Run, answers: Answers) -> dict[str, NDArray]:
    """Uncertainty of right and wrong answers on classes that were trained, and of new classes.

    Of a base-to-novel pair both halves together; of one model on known and open classes, apart.
    """
    other = run.other_half
    if other is not None and other not in study.broken:
        pair = {run.result.subsample_classes: answers}
        second = study.of_file(other)
        pair[second.result.subsample_classes] = second.answers()
        base, new = pair["base"], pair["new"]
        return {**split(base.uncertainty, base.right), "new classes": new.uncertainty}
    new = of_new_classes(run, answers)
    groups = split(answers.uncertainty[~new], answers.right[~new])
    return {**groups, **({"new classes": answers.uncertainty[new]} if new.any() else {})}


def split(values: NDArray, right: NDArray) -> dict[str, NDArray]:
    """Values (N,) of the right and of the wrong answers, without an empty one."""
    groups = {"right": values[right], "wrong": values[~right]}
    return {name: part for name, part in groups.items() if len(part)}


def of_new_classes(run: Run, answers: Answers) -> NDArray[np.bool_]:
    """(N,), which images are of classes that the model was not trained on.

    Asked of one data set only: another one's classes go by other names.
    """
    trained = run.result.trained()
    if trained["dataset"] != run.result.dataset or not trained["classnames"]:
        return np.zeros(len(answers.labels), bool)
    new = [name not in trained["classnames"] for name in run.result.classnames]
    return np.array(new)[answers.labels]
