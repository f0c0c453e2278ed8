"""From a request to its runs and its table: what `causalclip run` and the scripts share."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from causalclip.data.catalogue import BUNDLED, CATALOGUE
from causalclip.runs.best import Best
from causalclip.runs.domains import domains_of
from causalclip.runs.identity import described, has_result, read_run
from causalclip.runs.local import Local
from causalclip.runs.plan import PlanError, Request, Run, check, plan, wanted_parts
from causalclip.runs.recipes import BUNDLED_DATA
from causalclip.runs.schedule import Outcome
from causalclip.runs.state import Estimate, State, conflicts, finished, state_of
from causalclip.runs.stop import Stop

Engine = Callable[[Sequence[Run], Stop], Iterator[Outcome]]
"""Does runs, a training before its tests, and says of each how it ended."""

INTERRUPTED = 130


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
    check_readable(runs)
    if not dry:
        check_trained(request, runs)
        check_data(request)
        check_free(runs)
    return runs


def with_data(asked: Request, data: Path | None) -> Request:
    """The data's folder: as given, or $DATA; the bundled sets are built in ./data without one.

    Raises:
        PlanError: it is not given, or no folder.
    """
    source = (asked.source,) if asked.protocol.transfers else ()
    bundled = all(name.startswith(BUNDLED_DATA) for name in (*source, *asked.datasets))
    given = data or (Path(os.environ["DATA"]) if os.environ.get("DATA") else None)
    if given is None and not bundled:
        raise PlanError("where are the data sets? Give --data FOLDER, or set DATA")
    if given is None:
        Path("data").mkdir(exist_ok=True)
    folder = given or Path("data")
    if not folder.is_dir():
        raise PlanError(f"the folder of the data sets, {folder}, is not there")
    return replace(asked, data=folder)


def check_readable(runs: Sequence[Run]) -> None:
    """Raise for a folder that does not say what it holds.

    Raises:
        PlanError: names the file, and what is wrong with it.
    """
    for run in runs:
        try:
            read_run(run.folder)
        except ValueError as error:
            raise PlanError(f"{error}; choose another --output, or delete its folder") from error


def check_trained(request: Request, runs: Sequence[Run]) -> None:
    """Raise for a test whose training is neither there nor planned."""
    folders = {run.folder for run in runs}
    for run in runs:
        if run.trained and run.trained not in folders and not has_result(run.trained):
            first = "base2new_train.sh" if request.protocol.name == "base2new" else "xd_train.sh"
            raise PlanError(f"nothing trained in {run.trained}: run {first} first")


def check_data(request: Request) -> None:
    """Raise for data sets that are not there: better now than when their turn comes."""
    published = {facts.config: facts for facts in CATALOGUE.values() if facts not in BUNDLED}
    parts = wanted_parts(request)
    source = [request.source] if any(part.on_source for part in parts) else []
    asked = [published[name] for name in (*source, *request.datasets) if name in published]
    missing = [facts.config for facts in asked if facts.find(request.data) is None]
    if missing:
        raise PlanError(
            f"not in DATA={request.data}: {' '.join(missing)}. Get them (causalclip data download "
            "NAME), or name those to run (--datasets, of a script DATASETS)"
        )


def check_free(runs: Sequence[Run]) -> None:
    """Raise where a folder holds a run of other settings: it is neither skipped nor overwritten.

    Raises:
        PlanError: names the folders, the settings and both values.
    """
    others = [run for run in runs if state_of(run) is State.OTHER]
    said = [f"{run.folder} holds another run: {described(conflicts(run))}" for run in others]
    if said:
        raise PlanError("\n".join([*said, "choose another --output, or delete the old runs"]))


# Doing it


def perform(runs: Sequence[Run], engine: Engine | None = None) -> int:
    """Do the runs; 1 if one failed, with a list of those, 130 after Ctrl-C."""
    old = sum(state_of(run) is State.OLD for run in runs)
    if old:
        print(f"{old} folders are from before runs had an identity: taken as they are")
    ended: list[Outcome] = []
    with Stop().listening() as stop:
        try:
            _follow((engine or Local())(runs, stop), len(runs), ended)
        except KeyboardInterrupt:  # the second one; the first is a stop
            print("ended at once", file=sys.stderr)
    failed = [outcome for outcome in ended if not outcome.good]
    for outcome in failed:
        print(f"not finished: {outcome.run.folder}", file=sys.stderr)
    if stop.asked:
        left = len(runs) - len(ended)
        print(f"stopped with {left} runs left: the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return int(bool(failed))


def _follow(outcomes: Iterator[Outcome], count: int, ended: list[Outcome]) -> None:
    """Show each outcome, the best so far where it was measured, and how long the rest will take."""
    best = Best()
    with tqdm(total=count, unit="run", disable=count < 3) as bar:
        for outcome in outcomes:
            bar.write(line(outcome))
            if outcome.final:
                ended.append(outcome)
                bar.set_postfix_str(best.add(outcome.run.folder), refresh=False)
                bar.update()


def line(outcome: Outcome) -> str:
    """One line about the end of a run; a failure comes with its log."""
    folder = outcome.run.folder
    if outcome.state == "skipped":
        return f"skip (finished): {folder}"
    if outcome.state == "finished":
        return f"done in {outcome.seconds:.0f} s: {folder}"
    log = folder / "log.txt"
    where = f" (log: {log})" if log.is_file() else ""
    return f"{outcome.state}: {folder}: {outcome.reason}{where}"


# Showing it


def show(runs: Sequence[Run], root: Path, jobs: int = 1) -> None:
    """The commands of a plan, those of finished runs as remarks, and how long it will take."""
    states = {run.folder: state_of(run) for run in runs}
    for run in runs:
        state = states[run.folder]
        remark = "" if state in (State.TO_RUN, State.STALE) else f"# {state.value}: "
        print(f"{remark}causalclip train {shlex.join(run.arguments)}")
    left = [run for run in runs if not finished(states[run.folder])]
    count = Counter(state.value for state in states.values())
    print(f"# {len(runs)} runs: {', '.join(f'{n} {name}' for name, n in count.items())}")
    seconds, unknown = Estimate(root).total(left)
    if left and unknown < len(left):
        rest = f", and {unknown} that were never run" if unknown else ""
        print(f"# about {duration(seconds / jobs)} with {jobs} at a time, by past runs{rest}")


def duration(seconds: float) -> str:
    """Hours, minutes or seconds."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 90 else f"{minutes} min"


def table(folder: Path, *options: str, dry: bool = False) -> int:
    """`causalclip summarize` of a folder, or only its command."""
    arguments = [str(folder), *options]
    if dry:
        print(f"causalclip summarize {shlex.join(arguments)}")
        return 0
    from causalclip.report.summarize import main

    return main(arguments)
