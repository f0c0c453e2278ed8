"""Answers as a table, as JSON or as CSV, written row by row while they come."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from causalclip.predict.answer import Answer, Vote


@dataclass(frozen=True)
class Shown:
    """What is shown of an answer."""

    top: int
    """How many classes."""
    threshold: float | None = None
    """Above this uncertainty nothing is claimed; None claims always."""
    width: int = 40
    """Columns for the image's path in a table."""

    def abstains(self, answer: Answer) -> bool:
        """Whether an answer is too uncertain to be given."""
        return self.threshold is not None and answer.uncertainty > self.threshold


class Writer(Protocol):
    """Writes answers to a stream, one by one."""

    def __call__(self, answer: Answer) -> None:
        """Write one."""
        ...


@contextmanager
def json_writer(out: TextIO, shown: Shown) -> Iterator[Writer]:
    """One array, an object a line."""
    separator = "[\n"

    def write(answer: Answer) -> None:
        nonlocal separator
        out.write(separator + json.dumps(record(answer, shown), ensure_ascii=False))
        separator = ",\n"

    yield write
    out.write("[]\n" if separator == "[\n" else "\n]\n")


@contextmanager
def csv_writer(out: TextIO, shown: Shown) -> Iterator[Writer]:
    """One line an image under a line of names."""
    lines = csv.writer(out, lineterminator="\n")
    first = True

    def write(answer: Answer) -> None:
        nonlocal first
        cells = flat(record(answer, shown))
        if first:
            lines.writerow(cells)
        lines.writerow(cells.values())
        first = False

    yield write


@contextmanager
def table_writer(out: TextIO, shown: Shown) -> Iterator[Writer]:
    """Aligned columns for reading."""
    first = True

    def write(answer: Answer) -> None:
        nonlocal first
        cells = columns(answer, shown)
        if first:
            out.write("  ".join(f"{name:<{width}}" for name, (_, width) in cells.items()) + "\n")
        line = "  ".join(f"{text:<{width}}" for text, width in cells.values())
        out.write(line.rstrip() + "\n")
        first = False

    yield write


WRITERS = {"table": table_writer, "json": json_writer, "csv": csv_writer}


def record(answer: Answer, shown: Shown) -> dict[str, Any]:
    """An answer as JSON values; `prediction` is null where it abstains."""
    silent = shown.abstains(answer)
    return {
        "image": answer.image,
        "prediction": None if silent else answer.classname,
        **_certainty(answer),
        **answer.extras,
        "top": [{"class": name, "probability": p} for name, p in answer.top(shown.top)],
        **{
            name: [{"prediction": vote.classname, **_certainty(vote)} for vote in votes]
            for name, votes in answer.members.items()
        },
    }


def _certainty(vote: Vote) -> dict[str, float]:
    return {"probability": vote.probability, "uncertainty": vote.uncertainty}


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A record with lists of objects as columns: `top_1_class`, `template_2_uncertainty`."""
    cells: dict[str, Any] = {}
    for key, value in row.items():
        if not isinstance(value, list):
            cells[key] = "" if value is None else value
            continue
        for number, item in enumerate(value, 1):
            cells.update({f"{key}_{number}_{name}": part for name, part in item.items()})
    return cells


def columns(answer: Answer, shown: Shown) -> dict[str, tuple[str, int]]:
    """Text and width of each column of a table."""
    name_width = max(map(len, [*answer.classnames, "(abstains)"]))
    said = "(abstains)" if shown.abstains(answer) else answer.classname
    others = ", ".join(f"{name} {p:.3f}" for name, p in answer.top(shown.top)[1:])
    votes = {name: " ".join(v.classname for v in votes) for name, votes in answer.members.items()}
    return {
        "image": (answer.image, shown.width),
        "prediction": (said, name_width),
        "p": (f"{answer.probability:.3f}", 5),
        "uncertainty": (f"{answer.uncertainty:.4g}", 11),
        **{name: (f"{value:.3f}", max(5, len(name))) for name, value in answer.extras.items()},
        "then": (others, (name_width + 8) * (min(shown.top, len(answer.classnames)) - 1)),
        **{f"each {name}": (text, len(text)) for name, text in votes.items()},
    }
