"""Write the results below a folder as one HTML page: `causalclip report`."""

from __future__ import annotations

import datetime
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from tqdm.auto import tqdm

from causalclip.errors import sentence
from causalclip.files.atomic import replacing
from causalclip.files.text import visible
from causalclip.page.answer import answers, methods_table
from causalclip.page.figures import cost_figures, study_figures
from causalclip.page.gallery import PictureRoots, explanations, gallery, gallery_rows
from causalclip.page.options import GALLERY_IMAGES, PAGE_FILE, report_parser
from causalclip.page.run_view import drawing, run_view
from causalclip.page.searches import search_tables
from causalclip.page.study import Study, StudyRun
from causalclip.page.study_view import first_and_last_time, protocol_views, runs_table
from causalclip.records.predictions import PREDICTIONS_FILE
from causalclip.records.results import EXPLAINED_FOLDER, PROTOCOL_TITLES, RESULTS_FILE
from causalclip.records.searches import SEARCH_FILE
from causalclip.report.notes import warnings

NOTICE_SECONDS = 2.0
"""Seconds between two checks for new results with --watch."""


class Renderer:
    """Renders a study repeatedly; a run is drawn again only if its files have changed."""

    def __init__(self, *, images: int = GALLERY_IMAGES, data: Sequence[Path] = ()) -> None:
        """Show at most `images` different pictures, from the study and the `data` folders."""
        self.images, self.data = images, data
        self._drawn: dict[tuple, tuple[dict[str, Any], pd.DataFrame | None]] = {}

    def page(self, study: Study, *, refresh: float = 0) -> str:
        """Return the page as HTML; it reloads every `refresh` seconds, never if 0."""
        progress = tqdm(study.runs, "draw", unit="run", leave=False, disable=None)
        drawn = {run.file: (run, *self._draw(study, run)) for run in progress}
        parts = [(run, rows) for run, _, rows in drawn.values() if rows is not None]
        roots = PictureRoots(study.root, self.data)
        images = gallery(parts, roots, cap=self.images)
        plots = study_figures(study, study.scores)
        searches, unread = search_tables(study.root)
        environment = Environment(
            loader=PackageLoader("causalclip.page"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        return environment.get_template("report.html.j2").render(
            study=study,
            problems=[*study.problems, *unread],
            warnings=warnings(study.table),
            written=datetime.datetime.now(datetime.timezone.utc).isoformat(" ", "minutes"),
            refresh=refresh,
            finished=first_and_last_time(study),
            answers=[(PROTOCOL_TITLES[name], name, text) for name, text in answers(study)],
            overview=[drawing(plot, "overview") for plot in plots if plot.kind == "overview"],
            costs=[drawing(plot, "cost") for plot in cost_figures(study)],
            methods=methods_table(study),
            protocols=list(protocol_views(study)),
            searches=searches,
            table_of_runs=runs_table(study),
            views=[view for _, view, _ in drawn.values()],
            explained=explanations(study.runs, roots),
            gallery=images,
            gallery_json=Markup(script_json(images)),
        )

    def _draw(self, study: Study, run: StudyRun) -> tuple[dict[str, Any], pd.DataFrame | None]:
        folders = [run.folder] + ([run.other_half.parent] if run.other_half else [])
        files = [folder / name for folder in folders for name in (RESULTS_FILE, PREDICTIONS_FILE)]
        key = (run.anchor, run.name, *_modified(files).items())
        if key not in self._drawn:
            answers = None if run.file in study.broken else run.answers()
            rows = None if answers is None else gallery_rows(answers)
            self._drawn[key] = run_view(study, run, answers), rows
        return self._drawn[key]


def script_json(value: object) -> str:
    """Return JSON for a <script> element; `<` is escaped so that it cannot end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _modified(files: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return the modification time and the size of each file that exists."""
    stats = {file: file.stat() for file in files if file.is_file()}
    return {file: (stat.st_mtime_ns, stat.st_size) for file, stat in stats.items()}


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; return 2 on an error, such as a folder without results."""
    args = report_parser().parse_args(arguments)
    path = args.to or args.output / PAGE_FILE
    try:
        if args.images < 0 or (args.watch is not None and args.watch <= 0):
            raise ValueError(
                "--images must be 0 or more and --watch positive, "
                f"got {args.images} and {args.watch}"
            )
        renderer = Renderer(images=args.images, data=args.data)
        if args.watch:
            watch(renderer, args.output, path, seconds=args.watch)
        else:
            write_page(renderer, args.output, path)
    except (ValueError, OSError) as error:
        print(f"causalclip report: {sentence(error)}", file=sys.stderr)
        return 2
    return 0


def write_page(renderer: Renderer, output: Path, path: Path, *, refresh: float = 0) -> Study:
    """Read the folder, write the page atomically, print its path and return the study.

    Raises:
        ValueError: the folder has no result that can be read.
    """
    study = Study.read(output)
    html = renderer.page(study, refresh=refresh)
    with replacing(path) as part:
        part.write_text(html, encoding="utf-8", errors="backslashreplace")
    for problem in study.problems:
        print(f"not shown: {visible(problem)}", file=sys.stderr)
    megabytes = path.stat().st_size / 1e6
    print(f"wrote {path} ({len(study.runs)} results, {megabytes:.1f} MB): open it in a browser")
    return study


def watch(renderer: Renderer, output: Path, path: Path, *, seconds: float) -> None:
    """Write the page on new results, at most every `seconds`; on Ctrl-C once without reloading."""
    last: dict[Path, tuple[int, int]] = {}
    patterns = (RESULTS_FILE, PREDICTIONS_FILE, SEARCH_FILE, f"{EXPLAINED_FOLDER}/*.png")
    print(f"watching {output}; Ctrl-C ends it", flush=True)
    try:
        while True:
            files = _modified(file for pattern in patterns for file in output.rglob(pattern))
            if files and files != last:
                last = files
                try:
                    study = write_page(renderer, output, path, refresh=seconds)
                    print(best_so_far(study), flush=True)
                except (ValueError, OSError) as error:  # a file is incomplete or being written
                    print(f"not written: {sentence(error)}", file=sys.stderr)
                time.sleep(seconds)
            time.sleep(min(NOTICE_SECONDS, seconds))
    except KeyboardInterrupt:
        if last:
            write_page(renderer, output, path)


def best_so_far(study: Study) -> str:
    """Return a line for each table: its best method by its last compared quantity."""
    rows = study.scores[study.scores.compared != ""]
    lines = []
    for table, scores in rows.groupby("table", sort=False):
        last = scores[scores.compared == scores.compared.iloc[-1]]
        means = last.groupby("method", sort=False)["value"].mean()
        lines.append(f"{table}: best so far {means.idxmax()}, {means.max():.1f}")
    return "\n".join(lines) or "no protocol has a score yet"
