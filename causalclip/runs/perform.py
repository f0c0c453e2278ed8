"""Plan and perform the runs of a request, for `causalclip run` and the scripts."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from causalclip.data.catalogue import BUNDLED, CATALOGUE
from causalclip.errors import UserError
from causalclip.records.identity import has_result, read_run
from causalclip.runs.backbones import named_backbone
from causalclip.runs.executor import Executor
from causalclip.runs.plan import Run, plan
from causalclip.runs.progress import follow, print_summary
from causalclip.runs.protocols import Protocol
from causalclip.runs.recipes import names
from causalclip.runs.request import Request, check, wanted_parts
from causalclip.runs.schedule import Schedule, Stop
from causalclip.runs.state import data_of, refusal
from causalclip.runs.worker import Outcome, Show

if TYPE_CHECKING:
    from causalclip.runs.data_source import DataSource


def request_of(args: argparse.Namespace, protocol: Protocol) -> Request:
    """Return the request for the flags of `flags.methods_flags` and `flags.request_flags`.

    Raises:
        UserError: a module of --import that cannot be imported; or as `with_own`.
    """
    if args.imports:
        from causalclip.plugin import register_imports  # imports torch

        register_imports(args.imports)
    request = Request(
        protocol,
        methods=tuple(args.methods),
        datasets=tuple(args.datasets) or protocol.datasets,
        seeds=tuple(args.seeds) or ("1", "2", "3"),
        shots=tuple(args.shots),
        recipe=args.recipe,
        source=args.source,
        settings=tuple(args.settings),
        imports=tuple(args.imports),
    )
    return with_own(request, args.backbone, args.data)


def with_own(request: Request, backbone: str, data: Path | None = None) -> Request:
    """Resolve the data sets and the backbone of a request, which may be the user's own.

    Args:
        request: data sets and source are as the user wrote them; see `resolve_data`.
        backbone: as `named_backbone` takes it; empty: the recipe's.
        data: the folder of the registered data sets; None: $DATA, else data.

    Raises:
        UserError: no such data set or backbone, or one name for two data sets.
        ValueError, OSError: one that cannot be read.
    """
    words = dict.fromkeys(request.datasets)
    if request.protocol.transfers:
        words[request.source] = None
    sources = {word: source_of(word, data) for word in words}
    own: dict[str, DataSource] = {}
    for source in sources.values():
        if source.path and own.setdefault(source.name, source).path != source.path:
            places = f"{own[source.name].path} and {source.path}"
            raise UserError(f"two data sets are called {source.name}: {places}; rename one")
    return replace(
        request,
        datasets=tuple(dict.fromkeys(sources[word].name for word in request.datasets)),
        source=sources[request.source].name if request.source in sources else request.source,
        backbone=named_backbone(backbone) if backbone else None,
        own=own,
    )


def source_of(word: str, data: Path | None) -> DataSource:
    """Return the data set of a name, folder or file; see `resolve_data`.

    Raises:
        UserError, ValueError: as `resolve_data`, or the user's own set has a registered set's name.
    """
    from causalclip.plugin import register_all
    from causalclip.runs.data_source import DataSource, resolve_data  # imports torch

    registered = {facts.name: facts.config for facts in CATALOGUE.values()}
    config = registered.get(word, word)
    if config in names("datasets"):
        return DataSource(config, {})
    register_all()
    source = resolve_data(word, os.path.abspath(data or os.environ.get("DATA") or "data"))
    if source.path and source.name in (*names("datasets"), *registered):
        raise UserError(f"{source.path} has the name of a registered data set: rename it")
    return source


def planned(request: Request, *, dry: bool = False) -> list[Run]:
    """Check a request and return its runs; `dry` skips the checks of data and of earlier runs.

    Raises:
        UserError, ValueError, OSError: what cannot be run, why, and what can.
    """
    check(request)
    runs = plan(request, domains_for(request, None if dry else request.data))
    check_readable(runs)
    if not dry:
        check_pretrained(request, runs)
        check_trained(request, runs)
        check_data(request)
        check_free(runs)
    return runs


def domains_for(request: Request, root: Path | None) -> Callable[[str], list[str]]:
    """Return a function from the name of a data set to its domains; see `domains_of`."""
    from causalclip.runs.data_source import domains_of  # imports torch

    return lambda name: domains_of(request.own.get(name, name), root)


def with_data(asked: Request, data: Path | None, *, dry: bool = False) -> Request:
    """Return a request with the folder of the data sets: `data`, else $DATA, else ./data.

    ./data is for bundled data sets only. With `dry`, the folder need not exist.

    Raises:
        UserError: the folder is not given, or does not exist.
    """
    source = (asked.source,) if asked.protocol.transfers else ()
    below = [name for name in (*source, *asked.datasets) if name not in asked.own]
    bundled = all(map(asked.is_bundled, below))
    given = data or (Path(os.environ["DATA"]) if os.environ.get("DATA") else None)
    folder = given or Path("data")
    if dry:
        return replace(asked, data=folder)
    if given is None and not bundled:
        raise UserError("where are the data sets? Give --data FOLDER, or set DATA")
    if given is None and any(map(asked.is_bundled, (*below, *asked.own))):
        folder.mkdir(exist_ok=True)
    for own in asked.own.values():
        if not Path(own.settings["DATASET.ROOT"]).is_dir():
            raise UserError(f"{own.path}: DATASET.ROOT {own.settings['DATASET.ROOT']} is no folder")
    if below and not folder.is_dir():
        raise UserError(f"the folder of the data sets, {folder}, is not there")
    return replace(asked, data=folder)


def check_readable(runs: Sequence[Run]) -> None:
    """Raise for a folder whose run.json cannot be read.

    Raises:
        UserError: names the file, and what is wrong with it.
    """
    for run in runs:
        try:
            read_run(run.folder)
        except ValueError as error:
            raise UserError(f"{error}; choose another --output, or delete its folder") from error


def check_pretrained(request: Request, runs: Sequence[Run]) -> None:
    """Raise if the backbone is a file that cannot be loaded as a CLIP."""
    if request.backbone is not None and Path(request.backbone.model).is_file():
        from causalclip.runs.configuration import loadable  # imports torch

        loadable(runs[0].arguments)


def check_trained(request: Request, runs: Sequence[Run]) -> None:
    """Raise for a test whose training has no result and is not planned."""
    folders = {run.folder for run in runs}
    for run in runs:
        if run.trained and run.trained not in folders and not has_result(run.trained):
            first = "base2new_train.sh" if request.protocol.name == "base2new" else "xd_train.sh"
            raise UserError(f"nothing trained in {run.trained}: run {first} first")


def check_data(request: Request) -> None:
    """Raise for missing data sets, before any run starts."""
    published = {facts.config: facts for facts in CATALOGUE.values() if facts not in BUNDLED}
    parts = wanted_parts(request)
    source = [request.source] if any(part.on_source for part in parts) else []
    asked = [published[name] for name in (*source, *request.datasets) if name in published]
    missing = [facts.config for facts in asked if facts.find(request.data) is None]
    if missing:
        raise UserError(
            f"not in DATA={request.data}: {' '.join(missing)}. Get them (causalclip data download "
            "NAME), or name those to run (--datasets, of a script DATASETS)"
        )


def check_free(runs: Sequence[Run]) -> None:
    """Raise if a folder contains a run of other settings or data, which is never overwritten.

    Raises:
        UserError: names the folders, and the settings with both values.
        ValueError, OSError: wrong data, or data that cannot be read.
    """
    if said := [text for run in runs if (text := refusal(run))]:
        raise UserError("\n".join(said))


# Performing the runs


def perform(runs: Sequence[Run], executor: Executor, show: Show = "runs") -> int:
    """Perform the runs; return 1 if one failed, 130 after Ctrl-C, 143 after SIGTERM."""
    ended: list[Outcome] = []
    with _listening() as stop:
        try:
            build_bundled(runs)
            follow(Schedule(runs, executor, show), stop, len(runs), ended)
        except KeyboardInterrupt:  # SIGTERM, or the second Ctrl-C
            print("ended at once", file=sys.stderr)
        finally:
            executor.close()
    print_summary(len(runs), ended)
    if stop.asked:
        left = len(runs) - len(ended)
        print(f"stopped with {left} runs left: repeat the command to continue", file=sys.stderr)
        return 128 + stop.asked
    return int(any(outcome.state not in ("finished", "skipped") for outcome in ended))


def build_bundled(runs: Sequence[Run]) -> None:
    """Build the bundled data sets that are missing: parallel runs would each build them.

    Build each with the settings of its first run, and so store that run's few-shot images: the
    images drawn for a domain depend on the domains drawn before it.
    """
    for run in {run.draws: run for run in reversed(runs)}.values():
        if run.draws is not None and not run.draws.is_dir():
            data_of(run)


@contextmanager
def _listening() -> Iterator[Stop]:
    """Start no more runs after Ctrl-C; end at once after a second Ctrl-C, or after SIGTERM."""
    stop = Stop()

    def hear(number: int, _frame: FrameType | None) -> None:
        if stop.asked or number == signal.SIGTERM:
            stop.asked = number
            raise KeyboardInterrupt
        stop.asked = number
        print("\nstopping after the active runs (Ctrl-C again: at once)", file=sys.stderr)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_table(folder: Path, *options: str, dry: bool = False) -> int:
    """Perform `causalclip summarize` for a folder, or with `dry` print its command."""
    arguments = [str(folder), *options]
    if dry:
        print(f"causalclip summarize {shlex.join(arguments)}")
        return 0
    from causalclip.report.summarize import main

    return main(arguments)
