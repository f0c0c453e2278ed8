"""One run as the page shows it: facts, settings, tables and figures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from causalclip.page.answers import Answers
from causalclip.page.cells import Table, of_metrics, of_rows
from causalclip.page.figures import MOST_CLASSES, Figure, run_figures, subspaces
from causalclip.page.settings import differences, whole
from causalclip.page.study import Run, Study
from causalclip.report.plots_numbers import confusion, worst_pairs
from causalclip.report.plots_style import inline_svg
from causalclip.report.results import Result
from causalclip.report.tables import shots_name

WIDE = 4.5
"""Inches; a wider figure could not be read in one of three columns."""


@dataclass(frozen=True)
class Drawing:
    """A figure as an element of the page."""

    title: str
    caption: str
    svg: str
    wide: bool = False
    """Whether it needs the room of two."""


@dataclass(frozen=True)
class RunView:
    """What the template shows of a run."""

    run: Run
    facts: Sequence[tuple[str, str]]
    differences: Sequence[tuple[str, str, str]]
    settings: Sequence[tuple[str, str]]
    tables: Sequence[Table]
    drawings: Sequence[Drawing]
    pictured: bool
    """Whether the gallery has its images."""

    @property
    def accuracy(self) -> float:
        """Per cent."""
        return self.run.result.metrics["accuracy"]


def view_of(study: Study, run: Run, answers: Answers | None) -> RunView:
    """A run's view; without what its predictions are needed for where they cannot be read."""
    figures = run_figures(study, run, answers)
    return RunView(
        run,
        facts_of(run.result, run),
        differences(run.result),
        whole(run.result),
        list(tables_of(run, answers)),
        [drawing(figure, f"{run.anchor}-{i}") for i, figure in enumerate(figures)],
        answers is not None,
    )


def drawing(figure: Figure, name: str) -> Drawing:
    """A figure as SVG; `name` is unlike any other figure's."""
    label = f"{figure.caption}; {figure.title}"
    svg = inline_svg(figure.draw, label=label, name=name, width=figure.width, height=figure.height)
    return Drawing(figure.title, figure.caption, svg, figure.width > WIDE)


def facts_of(result: Result, run: Run) -> list[tuple[str, str]]:
    """What was run, when, with what, and what it cost."""
    trained = result.trained_on
    facts = [
        ("method", result.trainer),
        ("configuration", result.config_name or "not said"),
        ("backbone", result.backbone),
        ("data", f"{result.dataset}, {result.split} images"),
        ("source domains", " ".join(result.source_domains)),
        ("target domains", " ".join(result.target_domains)),
        ("trained on", f"{trained['dataset']}, {shots_name(trained['shots'])}" if trained else ""),
        ("finished", result.time),
        *_cost(result),
        ("measured about itself", _numbers(result)),
        ("versions", ", ".join(f"{k} {v}" for k, v in result.versions.items() if v)),
        ("command", " ".join([*result.command[:1], shlex.join(result.command[1:])])),
        ("folder", str(run.folder)),
    ]
    return [(name, text) for name, text in facts if text]


def _cost(result: Result) -> Iterator[tuple[str, str]]:
    training, evaluation = result.training or {}, result.evaluation
    names = {
        "seconds": "s",
        "epochs": "epochs",
        "steps": "steps",
        "images": "images",
        "learnable_parameters": "learnable parameters",
        "peak_memory_mb": "MiB at most",
    }
    said = [f"{training[key]:,.6g} {name}" for key, name in names.items() if training.get(key)]
    yield "training", ", ".join(said)
    if training.get("resumed_from_epoch"):
        yield "resumed", f"after epoch {training['resumed_from_epoch']}; seconds are from there on"
    if evaluation:
        seconds, images = evaluation.get("seconds", 0), evaluation.get("images", 0)
        yield "evaluation", f"{seconds:.3g} s, {images:g} images"


def _numbers(result: Result) -> str:
    """The plain numbers of `details`: CDC's offset and discount."""
    numbers = {k: v for k, v in result.details.items() if isinstance(v, (int, float))}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def tables_of(run: Run, answers: Answers | None) -> Iterator[Table]:
    """Metrics of every reading, part and member; of many classes the worst pairs."""
    result = run.result
    yield of_metrics("Readings", {"own reading": result.metrics, **result.variants})
    if result.parts:
        yield of_metrics("Parts of the test images", result.parts)
    for name, members in result.members.items():
        rows = {f"{name} {number}": metrics for number, metrics in enumerate(members, start=1)}
        yield of_metrics(f"Each {name} alone", rows)
    yield from _choices(run)
    if answers is not None and len(result.classnames) > MOST_CLASSES:
        yield _pairs(run, answers)


def _choices(run: Run) -> Iterator[Table]:
    """CLIP-ICM: the cell that was chosen for each reading, and what came of it."""
    heads = subspaces(run)
    if not heads:
        return
    columns = ["reading", "estimator", "strength", "kept", "features kept %", "change kept %"]
    rows = [
        [
            name,
            head["choice"]["estimator"],
            head["choice"]["strength"],
            head["choice"]["dim_inv"],
            round(100 * head["feature_energy_kept"], 1),
            round(100 * head["intervention_energy_kept"], 1),
        ]
        for name, head in heads.items()
    ]
    yield of_rows("Subspaces", columns, rows)
    certain = {name: head["certainty"] for name, head in heads.items() if "certainty" in head}
    if certain:
        names = ["resamples", "angle_50", "angle_95", "bound"]
        angles = [
            [name, *(_short(found.get(key)) for key in names)] for name, found in certain.items()
        ]
        yield of_rows("Angles of resampled subspaces, degrees", ["reading", *names], angles)


def _short(value: float | None) -> float | str:
    return "-" if value is None else round(value, 1)


def _pairs(run: Run, answers: Answers) -> Table:
    names = run.result.classnames
    matrix = confusion(answers.labels, answers.predicted, classes=len(names))
    rows = [
        [names[pair.label], names[pair.predicted], pair.count, round(100 * pair.share, 1)]
        for pair in worst_pairs(matrix)
    ]
    columns = ["class", "taken for", "images", "% of the class"]
    return of_rows(f"Most frequent mistakes among {len(names)} classes", columns, rows)
