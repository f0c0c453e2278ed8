"""A run away from home: what a process on any machine of a cluster is told, does and answers.

Nothing here knows Ray. A machine that sees the folder of who sent the run works in it, as every
other process would; one that does not works in a folder of its own and sends its files back.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from causalclip.runs.lock import holder_of
from causalclip.runs.parcel import packed, unpack
from causalclip.runs.plan import Run
from causalclip.runs.recipes import CONFIGS
from causalclip.runs.worker import THREAD_VARIABLES, Show, one

LAST_WORDS = 60.0
"""Seconds in which a process that was cut off from its cluster must have ended."""


@dataclass(frozen=True)
class Errand:
    """A run, and where it was sent from."""

    run: Run
    home: Path
    """The folder in which who sent it was called."""
    configs: Path
    mark: Path
    """A file that only who sees the sender's folder of results sees."""
    threads: int | None
    show: Show


@dataclass(frozen=True)
class Parcels:
    """What is in the folders of a run that a machine may not see."""

    folder: bytes
    trained: bytes


@dataclass(frozen=True)
class Answer:
    """How an errand ended."""

    reason: str = ""
    """Why it failed."""
    seconds: float = 0.0
    parcel: bytes | None = None
    """The run's folder, from a machine that does not see it."""
    needs_parcels: bool = False
    """It was not begun: its folders are not seen here."""


def do(errand: Errand, parcels: Parcels | None) -> Answer:
    """Do a run, here."""
    if errand.threads is not None:  # before torch and NumPy are imported
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(errand.threads)))
    before = Path.cwd()
    if errand.home.is_dir():
        os.chdir(errand.home)  # relative paths are from there
    try:
        if errand.mark.is_file():
            return _at_home(errand)
        return Answer(needs_parcels=True) if parcels is None else _away(errand, parcels)
    finally:
        os.chdir(before)


def _at_home(errand: Errand) -> Answer:
    # Another machine may have lost its cluster a moment ago, and its process not yet noticed.
    deadline = time.monotonic() + LAST_WORDS
    while holder_of(errand.run.folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    return _done(errand, {})


def _away(errand: Errand, parcels: Parcels) -> Answer:
    with tempfile.TemporaryDirectory(prefix="causalclip-") as name:
        folder, trained = Path(name, "run"), Path(name, "trained")
        unpack(parcels.folder, folder)
        unpack(parcels.trained, trained)
        places = {"--output-dir": str(folder), "--model-dir": str(trained)}
        if errand.run.draws is not None and not errand.run.draws.parent.is_dir():
            places["--root"] = str(_drawn_here())
        answer = _done(errand, places)
        return Answer(answer.reason, answer.seconds, packed(folder))


def _drawn_here() -> Path:
    """Where this machine keeps the bundled data sets."""
    folder = Path(tempfile.gettempdir(), f"causalclip-data-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    return folder


def _done(errand: Errand, places: Mapping[str, str]) -> Answer:
    """Train or evaluate; a mistake in the program ends the process, which may be broken."""
    from causalclip.runs import train  # the imports that are kept

    arguments = moved(errand.run.arguments, errand.configs, places)
    begin, ended = time.monotonic(), False
    try:
        reason = one(train.main, arguments, errand.show)
        ended = True
    finally:
        if not ended:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    return Answer(reason, time.monotonic() - begin)


def moved(arguments: Sequence[str], configs: Path, places: Mapping[str, str]) -> list[str]:
    """Arguments of `causalclip train` for this machine.

    Args:
        arguments: as the plan has them.
        configs: where the sender's configurations lie; here they may lie elsewhere.
        places: folders in place of those that follow a flag.
    """
    before = ("", *arguments[:-1])
    found = [places.get(flag, word) for flag, word in zip(before, arguments, strict=True)]
    return [_here(word, configs) for word in found]


def _here(word: str, configs: Path) -> str:
    path = Path(word)
    return str(CONFIGS / path.relative_to(configs)) if path.is_relative_to(configs) else word
