"""From a request to its runs and its table: what `causalclip run` and the scripts share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from causalclip.data.catalogue import BUNDLED, CATALOGUE
from causalclip.runs.domains import domains_of
from causalclip.runs.execute import finished, run_all
from causalclip.runs.plan import PlanError, Request, Run, check, plan, wanted_parts


def planned(request: Request, *, dry: bool = False) -> list[Run]:
    """The runs of a request, checked.

    Args:
        request: what was asked for.
        dry: whether nothing will be run, so that no data need be there.

    Raises:
        PlanError: what cannot be run, why, and what can.
    """
    check(request)
    try:
        runs = plan(request, lambda name: domains_of(name, None if dry else request.data))
    except (ValueError, FileNotFoundError) as error:
        raise PlanError(str(error)) from error
    if not dry:
        check_trained(request, runs)
        check_data(request)
    return runs


def check_trained(request: Request, runs: Sequence[Run]) -> None:
    """Raise for a test whose training is neither there nor planned."""
    folders = {run.folder for run in runs}
    for run in runs:
        if run.trained and run.trained not in folders and not finished(run.trained):
            first = "base2new_train.sh" if request.protocol.name == "base2new" else "xd_train.sh"
            raise PlanError(f"nothing trained in {run.trained}: run {first} first")


def check_data(request: Request) -> None:
    """Raise for data sets that are not there: better now than when their turn comes."""
    published = {facts.config: facts for facts in CATALOGUE.values() if facts not in BUNDLED}
    parts = wanted_parts(request)
    source = [request.source] if any(part.on_source for part in parts) else []
    asked = [published[name] for name in (*source, *request.datasets) if name in published]
    if not asked:
        return

    missing = [facts.config for facts in asked if facts.find(request.data) is None]
    if missing:
        raise PlanError(
            f"not in DATA={request.data}: {' '.join(missing)}. Get them (causalclip data download "
            "NAME), or name those to run: DATASETS=..."
        )


def perform(runs: Sequence[Run], *, shortened: bool = False) -> int:
    """Run them; 1 if one failed, and a list of those."""
    failed = run_all(runs, shortened=shortened)
    for run in failed:
        print(f"not finished: {run.folder}", file=sys.stderr)
    return int(bool(failed))


def show(runs: Sequence[Run]) -> None:
    """The commands of a plan, those of finished runs as remarks."""
    for run in runs:
        done = "# finished: " if finished(run.folder) else ""
        print(f"{done}causalclip train {shlex.join(run.arguments)}")


def table(folder: Path, *options: str, dry: bool = False) -> int:
    """`causalclip summarize` of a folder, or only its command."""
    arguments = [str(folder), *options]
    if dry:
        print(f"causalclip summarize {shlex.join(arguments)}")
        return 0
    from causalclip.report.summarize import main

    return main(arguments)
