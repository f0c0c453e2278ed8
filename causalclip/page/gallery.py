"""The gallery: the most telling test images of a study, and what each run answered about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalclip.page.answers import Answers
from causalclip.page.study import Run
from causalclip.page.thumbnails import thumbnail

TOP = 0.8
"""Images above this quantile of a run's uncertainty (conflict) are its uncertain (conflicting)."""


@dataclass(frozen=True, eq=False)
class Answered:
    """What the gallery needs of a run: a few numbers an image, not its probabilities of K."""

    run: Run
    paths: NDArray[np.str_]
    labels: NDArray[np.integer]
    predicted: NDArray[np.integer]
    probability: NDArray
    """(N,), of the predicted class."""
    uncertainty: NDArray
    conflict: NDArray | None
    votes: NDArray[np.integer] | None
    """(N, M), the class each template predicts."""
    certainty: NDArray | None
    """(N, M), how probable it says that class is."""

    @classmethod
    def of(cls, run: Run, answers: Answers) -> Answered:
        """The gallery's part of a run's answers."""
        templates = answers.templates
        return cls(
            run,
            answers.paths,
            answers.labels,
            answers.predicted,
            answers.probabilities.max(-1),
            answers.uncertainty,
            answers.conflict,
            None if templates is None else templates.argmax(-1),
            None if templates is None else templates.max(-1),
        )

    def telling(self) -> list[NDArray[np.integer]]:
        """Rows (N,) in several orders: wrong and sure, uncertain, conflicting, and evenly all."""
        by_certainty = np.argsort(self.uncertainty, kind="stable")
        wrong = (self.predicted != self.labels)[by_certainty]
        orders = [by_certainty[wrong], by_certainty[::-1]]
        if self.conflict is not None:
            orders.append(np.argsort(-self.conflict, kind="stable"))
        # Golden-ratio steps through the data: any prefix of them is spread over all classes.
        count = len(self.labels)
        evenly = np.argsort((np.arange(count) * 0.6180339887498949) % 1, kind="stable")
        return [*orders, evenly]


def gallery(answered: Sequence[Answered], *, cap: int) -> dict[str, Any]:
    """What the page's script shows, as JSON values.

    Args:
        answered: the runs that have predictions.
        cap: how many different images are shown; of every run in turn the most telling.
    """
    total = len(set().union(*(set(part.paths.tolist()) for part in answered)))
    chosen = {path: place for place, path in enumerate(chosen_paths(answered, cap))}
    pictures = [thumbnail(path) for path in chosen]
    return {
        "total": total,
        "images": [
            {"src": src, "reason": reason, "path": path}
            for (src, reason), path in zip(pictures, chosen, strict=True)
        ],
        "runs": [_of_run(part, chosen) for part in answered],
    }


def chosen_paths(answered: Sequence[Answered], cap: int) -> list[str]:
    """At most `cap` paths: of each order of each run in turn the next that is not chosen yet."""
    chosen: dict[str, None] = {}
    for path in _in_turn(answered):
        if len(chosen) >= cap:
            break
        chosen.setdefault(path)
    return list(chosen)


def _in_turn(answered: Sequence[Answered]) -> Iterator[str]:
    orders = [(part.paths, rows) for part in answered for rows in part.telling()]
    for several in zip_longest(*(rows for _, rows in orders)):
        for (paths, _), row in zip(orders, several, strict=True):
            if row is not None:
                yield str(paths[row])


def _of_run(part: Answered, chosen: Mapping[str, int]) -> dict[str, Any]:
    rows = [row for row, path in enumerate(part.paths.tolist()) if path in chosen]
    return {
        "anchor": part.run.anchor,
        "name": part.run.name,
        "domain": " ".join(part.run.result.target_domains),
        "classes": part.run.result.classnames,
        "count": len(part.labels),
        "uncertain": _digits(np.quantile(part.uncertainty, TOP)),
        "conflicting": None if part.conflict is None else _digits(np.quantile(part.conflict, TOP)),
        "items": [_item(part, row, chosen[str(part.paths[row])]) for row in rows],
    }


def _item(part: Answered, row: int, image: int) -> list[Any]:
    """[image, label, prediction, probability, uncertainty, conflict, votes], as the script reads.

    Votes are [class, probability] of each template, or null.
    """
    votes = None
    if part.votes is not None and part.certainty is not None:
        pairs = zip(part.votes[row].tolist(), part.certainty[row].tolist(), strict=True)
        votes = [[vote, _digits(p)] for vote, p in pairs]
    return [
        image,
        int(part.labels[row]),
        int(part.predicted[row]),
        _digits(part.probability[row]),
        _digits(part.uncertainty[row]),
        None if part.conflict is None else _digits(part.conflict[row]),
        votes,
    ]


def _digits(value: float) -> float | None:
    """Four digits, which 1e-69 has too; null for what is no number."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
