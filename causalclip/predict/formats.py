"""Format answers as a table, as JSON or as CSV, each as soon as it is available."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from causalclip.files.text import spreadsheet_cell, visible
from causalclip.predict.answers import Answer, Vote

ABSTAINS = "(abstains)"


@dataclass(frozen=True)
class Display:
    """The options of a format."""

    top: int
    """Number of classes to show."""
    threshold: float | None = None
    """Uncertainty above which no class is predicted; None: always predict one."""
    width: int = 40
    """Width of the column of image paths in a table, in characters."""

    def abstains(self, answer: Answer) -> bool:
        """Return whether an answer is too uncertain to predict a class."""
        return self.threshold is not None and answer.uncertainty > self.threshold


def json_text(answers: Iterable[Answer], display: Display) -> Iterator[str]:
    """Yield one JSON array, an object per line."""
    start = "[\n"
    for answer in answers:
        yield start + json.dumps(_record(answer, display), ensure_ascii=False)
        start = ",\n"
    yield "[]\n" if start == "[\n" else "\n]\n"


def csv_text(answers: Iterable[Answer], display: Display) -> Iterator[str]:
    """Yield a line of column names, and a line per answer."""
    for number, answer in enumerate(answers):
        cells, lines = _flattened(_record(answer, display)), io.StringIO()
        writer = csv.DictWriter(lines, cells, lineterminator="\n")
        if number == 0:
            writer.writeheader()
        writer.writerow({name: spreadsheet_cell(cell) for name, cell in cells.items()})
        yield lines.getvalue()


def table_text(answers: Iterable[Answer], display: Display) -> Iterator[str]:
    """Yield a line of column names, and a line per answer, in aligned columns."""
    for number, answer in enumerate(answers):
        columns = _columns(answer, display)
        if number == 0:
            yield "  ".join(f"{name:<{width}}" for name, (_, width) in columns.items()) + "\n"
        yield "  ".join(f"{text:<{width}}" for text, width in columns.values()).rstrip() + "\n"


WRITERS = {"table": table_text, "json": json_text, "csv": csv_text}


def _record(answer: Answer, display: Display) -> dict[str, Any]:
    """Return an answer as JSON values; `prediction` is null where it abstains."""
    return {
        "image": answer.image,
        "prediction": None if display.abstains(answer) else answer.classname,
        **_certainty(answer),
        **answer.extras,
        "top": [{"class": name, "probability": p} for name, p in answer.top(display.top)],
        **{
            name: [{"prediction": vote.classname, **_certainty(vote)} for vote in votes]
            for name, votes in answer.members.items()
        },
    }


def _certainty(vote: Vote) -> dict[str, float]:
    return {"probability": vote.probability, "uncertainty": vote.uncertainty}


def _flattened(row: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its lists as columns: `top_1_class`, `template_2_uncertainty`."""
    cells: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, list):
            for number, item in enumerate(value, 1):
                cells.update({f"{key}_{number}_{name}": part for name, part in item.items()})
        else:
            cells[key] = value  # None is an empty cell
    return cells


def _columns(answer: Answer, display: Display) -> dict[str, tuple[str, int]]:
    """Return the text and the width of each column of a table."""
    name_width = max(map(len, [*answer.classnames, ABSTAINS]))
    others = [f"{name} {p:.3f}" for name, p in answer.top(display.top)[1:]]
    votes = {name: " ".join(v.classname for v in votes) for name, votes in answer.members.items()}
    return {
        "image": (visible(answer.image), display.width),
        "prediction": (ABSTAINS if display.abstains(answer) else answer.classname, name_width),
        "p": (f"{answer.probability:.3f}", 5),
        "uncertainty": (f"{answer.uncertainty:.4g}", 11),
        **{name: (f"{value:.3f}", max(5, len(name))) for name, value in answer.extras.items()},
        "then": (", ".join(others), (name_width + 8) * len(others)),
        **{f"each {name}": (text, len(text)) for name, text in votes.items()},
    }
