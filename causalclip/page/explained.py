"""The pictures that `causalclip explain` has drawn of the runs, for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from causalclip.page.study import Run
from causalclip.page.thumbnails import thumbnail
from causalclip.report.results import EXPLAINED_FOLDER

MOST = 40
"""Of all runs together: about 100 kB each."""
SIDE = 1320
"""Pixels of the longer side."""
DENSITY = 2
"""Pixels of the drawing to one of the page: a picture and five maps take 990."""


@dataclass(frozen=True)
class Explained:
    """One picture with its maps."""

    src: str
    """A data URI; empty where it cannot be read."""
    said: str
    """What it shows, or why it is not shown."""
    width: int = 0
    """Of the page's pixels."""


@dataclass(frozen=True)
class OfRun:
    """The explained pictures of one run."""

    folder: Path
    shown: Sequence[Explained]
    left_out: int


def explanations(runs: Sequence[Run], *, most: int = MOST) -> Mapping[Path, OfRun]:
    """By results.json file of each run that has any; of every run in turn, `most` in all."""
    found = {run.file: _files(run.folder) for run in runs}
    turns = [(turn, file) for files in found.values() for turn, file in enumerate(files)]
    chosen = {file for _, file in sorted(turns, key=lambda one: one[0])[:most]}
    return {
        key: OfRun(
            key.parent / EXPLAINED_FOLDER,
            [_shown(file) for file in files if file in chosen],
            len(set(files) - chosen),
        )
        for key, files in found.items()
        if files
    }


def _files(folder: Path) -> list[Path]:
    return sorted((folder / EXPLAINED_FOLDER).glob("*.png"))


def _shown(file: Path) -> Explained:
    src, reason = thumbnail(file, side=SIDE)
    if not src:
        return Explained("", f"{file}: {reason}")
    with Image.open(file) as image:
        said = str(image.info.get("Description", file.name))
        return Explained(src, said, image.width // DENSITY)
