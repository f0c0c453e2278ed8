"""The figures of a run and of a study, for the page and for `causalclip plot`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causalclip.metrics import risk_coverage
from causalclip.page.options import FIGURE_KINDS
from causalclip.page.study import Answers, Study, StudyRun
from causalclip.plots import run_plots, study_plots
from causalclip.plots.panels import draw_panels
from causalclip.records.results import PROTOCOL_TITLES
from causalclip.report.costs import TRAINING, run_costs
from causalclip.report.notes import icm_heads
from causalclip.report.seeds import main_scores, over_seeds

MATRIX_CLASSES = 20
"""Maximum number of classes in a confusion matrix; with more, a table lists common mistakes."""
MOST_PANELS = 6
"""Maximum number of panels; a comparison of more quantities has only `average` and `worst`."""
NO_ACCURACY = ("train s", "AUROC", "ECE base", "ECE new")
"""Quantities that a comparison of accuracies leaves out."""


@dataclass(frozen=True, eq=False)
class Plot:
    """One figure, which can be drawn in any size."""

    kind: str
    title: str
    """Name of the run or table that the figure shows."""
    draw: Callable[..., None]
    data: tuple
    """The arguments of `draw` after the figure."""
    height: float | Callable[[float], float] = 2.4
    """Height in inches at the width `width`, or a function from a width to a height."""
    width: float = 3.4
    part: str = ""
    """Text that distinguishes the figure from others of the same kind and run."""
    first: int = 0
    """Number of the method, whose colour is the first one of the figure."""

    def size(self, width: float) -> tuple[float, float]:
        """Return width and height in inches."""
        if callable(self.height):
            return width, self.height(width)
        return width, self.height * width / self.width

    @property
    def caption(self) -> str:
        """Description of the kind of figure, and the part."""
        return f"{FIGURE_KINDS[self.kind]} ({self.part})" if self.part else FIGURE_KINDS[self.kind]


def study_figures(study: Study, scores: pd.DataFrame) -> Iterator[Plot]:
    """Yield the overview, a comparison of each table with several methods, and few-shot curves.

    They show the methods' own readings. A method has the same colour in all figures of the study.
    """
    scores = scores[scores.variant == ""]
    main = main_scores(scores)
    yield from _comparison(study, "overview", str(study.root), main)
    for name, rows in scores.groupby("table", sort=False):
        title, quantities = str(name), rows.quantity[~rows.quantity.isin(NO_ACCURACY)]
        if quantities.nunique() > MOST_PANELS:
            quantities = quantities[quantities.isin(("average", "worst"))]
        yield from _comparison(study, "comparison", title, rows.loc[quantities.index])
        few = rows[(rows.protocol == "fewshot") & (rows.shots > 0)]
        if few["shots"].nunique() > 1:
            height = partial(study_plots.fewshot_height, methods=few["method"].nunique())
            data = few, study.numbers
            yield Plot("fewshot", title, study_plots.draw_fewshot, data, height, 4.2)


def cost_figures(study: Study) -> Iterator[Plot]:
    """Yield a plot of scores over training seconds for each protocol with several methods."""
    costs = run_costs(study.table).groupby(["protocol", "method"])[TRAINING].mean().dropna()
    for protocol, rows in main_scores(study.scores).groupby("protocol", sort=False):
        values = rows.groupby("method")["value"].mean()
        seconds = costs[costs > 0].xs(protocol) if protocol in costs else costs[:0]
        methods = seconds.index.intersection(values.index)
        if len(methods) > 1:
            panels = study_plots.cost_panels(seconds[methods], values, study.numbers)
            title, height = PROTOCOL_TITLES[str(protocol)], 2.2
            yield Plot("cost", title, draw_panels, (panels,), height)


def _comparison(study: Study, kind: str, title: str, rows: pd.DataFrame) -> Iterator[Plot]:
    quantities = list(dict.fromkeys(rows.quantity))
    if (methods := rows["method"].nunique()) > 1 and quantities:
        size = {"panels": len(quantities), "methods": methods}
        height = partial(study_plots.comparison_height, **size)
        data = over_seeds(rows), quantities, study.numbers
        width = 1.9 + 1.25 * min(len(quantities), 4)
        yield Plot(kind, title, study_plots.draw_comparison, data, height, width)


def run_figures(study: Study, run: StudyRun, answers: Answers | None) -> Iterator[Plot]:
    """Yield the figures of a run, with the method's colour as the first one.

    If its predictions cannot be read, `answers` is None and their figures are left out.
    """
    first = study.numbers.get(run.method, 0)
    yield from (replace(plot, first=first) for plot in _run_figures(study, run, answers))


def _run_figures(study: Study, run: StudyRun, answers: Answers | None) -> Iterator[Plot]:
    curve = (run.result.training or {}).get("curve")
    if curve and curve["epoch"]:
        yield Plot("training", run.name, draw_panels, (run_plots.training_panels(curve),), 3.0)
    if answers is not None:
        yield from _answer_figures(study, run, answers)
    if members := run.result.members.get("template"):
        data = members, run.result.metrics["accuracy"]
        yield Plot("templates", run.name, run_plots.draw_templates, data)
    arrays = {} if answers is None else answers.arrays
    if "template_uncertainty" in arrays:
        columns = enumerate(arrays["template_uncertainty"].T, start=1)
        groups = {f"S{number}": values for number, values in columns}
        yield _histograms("opinions", run, groups)
    if answers is not None and "conflict" in arrays:
        groups = _by_correctness(arrays["conflict"], answers.correct)
        yield _histograms("conflict", run, groups)
    if heads := run_heads(run):
        yield from _icm_figures(run.name, heads)


def _answer_figures(study: Study, run: StudyRun, answers: Answers) -> Iterator[Plot]:
    labels, readings = answers.arrays["label"], answers.readings
    bins = {name: run_plots.reliability(p, labels) for name, (p, _) in readings.items()}
    panels = run_plots.reliability_panels(bins, answers.arrays["probabilities"].max(-1))
    yield Plot("reliability", run.name, draw_panels, (panels,), 3.4)
    risks = {name: risk_coverage(u, p.argmax(-1) == labels) for name, (p, u) in readings.items()}
    yield Plot("risk", run.name, draw_panels, (run_plots.risk_panels(risks),))
    yield _histograms("uncertainty", run, uncertainty_by_group(study, run, answers))
    names = run.result.classnames
    if len(names) <= MATRIX_CLASSES:
        data, size = (confusion(run, answers), names), 0.17 * len(names)
        yield Plot("confusion", run.name, run_plots.draw_confusion, data, 1.4 + size, 1.6 + size)


def _histograms(kind: str, run: StudyRun, groups: Mapping[str, NDArray]) -> Plot:
    quantity = "conflict" if kind == "conflict" else "uncertainty"
    panels = run_plots.histogram_panels(groups, quantity)
    return Plot(kind, run.name, draw_panels, (panels,))


def _icm_figures(title: str, heads: run_plots.Heads) -> Iterator[Plot]:
    yield Plot("spectrum", title, draw_panels, (run_plots.spectrum_panels(heads),))
    yield Plot("energy", title, run_plots.draw_energy, (heads,), 0.9 + 0.45 * len(heads))
    for name, head in heads.items():
        if head["grid"]:
            data = head["grid"], head["choice"]
            yield Plot("choice", f"{title} · {name}", run_plots.draw_choice, data, 2.6, 5.2, name)
    if certain := {name: head for name, head in heads.items() if "certainty" in head}:
        yield Plot("angles", title, run_plots.draw_angles, (certain,), 0.8 + 0.3 * len(certain))


def run_heads(run: StudyRun) -> dict[str, dict[str, Any]]:
    """Return CLIP-ICM's subspaces in results.json by reading; each has all keys of `_Head`."""
    return icm_heads(run.result.details, _Head)


class _Choice(TypedDict):
    estimator: str
    strength: float
    dim_inv: int


class _Cell(_Choice):
    mean: float | None


class _Head(TypedDict):
    choice: _Choice
    grid: list[_Cell]
    spectrum: list[float | None]
    feature_energy_kept: float
    intervention_energy_kept: float


def confusion(run: StudyRun, answers: Answers) -> NDArray[np.int64]:
    """Return the confusion matrix (K, K): images by class (rows) and predicted class (columns)."""
    from sklearn.metrics import confusion_matrix

    classes = np.arange(len(run.result.classnames))
    return confusion_matrix(answers.arrays["label"], answers.predicted, labels=classes)


def uncertainty_by_group(study: Study, run: StudyRun, answers: Answers) -> dict[str, NDArray]:
    """Return the uncertainty of right and wrong answers on trained classes, and of new classes.

    For a base-to-novel pair, this joins the runs of both halves. In other runs, a class is new if
    the model was not trained on it; if it was trained on another data set, no class is new.
    """
    uncertainty, correct = answers.arrays["uncertainty"], answers.correct
    if run.other_half is not None and run.other_half not in study.broken:
        other = study.run_of(run.other_half).answers()
        base, new = (other, answers) if run.result.subsample_classes == "new" else (answers, other)
        groups = _by_correctness(base.arrays["uncertainty"], base.correct)
        return {**groups, "new classes": new.arrays["uncertainty"]}
    result, trained = run.result, run.result.trained()
    same_data = trained["dataset"] == result.dataset and bool(trained["classnames"])
    new_classes = [same_data and name not in trained["classnames"] for name in result.classnames]
    is_new = np.array(new_classes)[answers.arrays["label"]]
    groups = _by_correctness(uncertainty[~is_new], correct[~is_new])
    return groups | ({"new classes": uncertainty[is_new]} if is_new.any() else {})


def _by_correctness(values: NDArray, correct: NDArray) -> dict[str, NDArray]:
    """Return the values (N,) of the right and of the wrong answers; an empty group is left out."""
    groups = {"right": values[correct], "wrong": values[~correct]}
    return {name: part for name, part in groups.items() if len(part)}
