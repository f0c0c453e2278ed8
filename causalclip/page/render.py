"""Writes the page: a study, drawn and put into the template, as one HTML file."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from causalclip.files.atomic import replacing
from causalclip.page.explained import explanations
from causalclip.page.gallery import Answered, gallery
from causalclip.page.run_view import RunView, view_of
from causalclip.page.study import Run, Study
from causalclip.page.study_view import Group, finished, grouped, protocols, what_was_run
from causalclip.page.thumbnails import embedded_json
from causalclip.report.predictions import PREDICTIONS_FILE
from causalclip.report.results import RESULTS_FILE

PAGE_FILE = "report.html"
IMAGES = 300
"""Different pictures in the gallery, unless asked for others."""

Progress = Callable[[Iterable[Run]], Iterable[Run]]
"""Shows how far the drawing is; hands the runs on."""


class Renderer:
    """Renders a study again and again; what a run's files said before is not drawn anew."""

    def __init__(self, *, images: int = IMAGES) -> None:
        """Show at most `images` different pictures."""
        self.images = images
        self._drawn: dict[tuple, tuple[RunView, Answered | None]] = {}

    def page(self, study: Study, *, refresh: float = 0, progress: Progress = iter) -> str:
        """The page as HTML.

        Args:
            study: what is shown.
            refresh: seconds after which the page loads itself again; 0 for never.
            progress: told of each run that is drawn.
        """
        drawn = {run.file: self._draw(study, run) for run in progress(study.runs)}
        shown = gallery([part for _, part in drawn.values() if part], cap=self.images)
        return (
            environment()
            .get_template("report.html.j2")
            .render(
                study=study,
                written=datetime.datetime.now(datetime.timezone.utc).isoformat(" ", "minutes"),
                refresh=refresh,
                finished=finished(study),
                overview=what_was_run(study),
                protocols=list(protocols(study)),
                groups=[
                    Group(anchor, " · ".join(runs[0].group), [drawn[run.file][0] for run in runs])
                    for anchor, runs in grouped(study)
                ],
                explained=explanations(study.runs),
                gallery=shown,
                gallery_json=Markup(embedded_json(shown)),
            )
        )

    def _draw(self, study: Study, run: Run) -> tuple[RunView, Answered | None]:
        key = (run.anchor, run.name, *_stamps(run))
        if key not in self._drawn:
            answers = None if run.file in study.broken else run.answers()
            part = None if answers is None else Answered.of(run, answers)
            self._drawn[key] = view_of(study, run, answers), part
        return self._drawn[key]


def _stamps(run: Run) -> list[tuple[str, int, int]]:
    """What changes when a file of the run, or of its other half, does."""
    folders = [run.folder] + ([run.other_half.parent] if run.other_half else [])
    files = [folder / name for folder in folders for name in (RESULTS_FILE, PREDICTIONS_FILE)]
    found = [(file, file.stat()) for file in files if file.is_file()]
    return [(str(file), stat.st_mtime_ns, stat.st_size) for file, stat in found]


def environment() -> Environment:
    """The templates: what is put into them is escaped, and a missing name is an error."""
    found = Environment(
        loader=PackageLoader("causalclip.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters["drawn"] = lambda drawing: Markup(drawing.svg)
    return found


def write_page(html: str, path: Path) -> Path:
    """Write the page, whole or not at all; its path."""
    with replacing(path) as part:
        part.write_text(html, encoding="utf-8")
    return path
