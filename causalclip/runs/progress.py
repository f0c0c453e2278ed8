"""Terminal output of many runs: the plan, a progress bar, a line for each run, the failures."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from tabulate import tabulate
from tqdm.auto import tqdm

from causalclip.errors import sentence
from causalclip.records.results import RESULTS_FILE
from causalclip.runs.plan import Run
from causalclip.runs.schedule import Schedule, Stop
from causalclip.runs.state import State, state_of
from causalclip.runs.worker import Outcome

FIELDS = ("method", "data", "target", "shots", "settings", "seed", "part")
ALWAYS_SHOWN = ("method", "data", "seed", "part")
STATE_COLOURS = {"finished": 32, "failed": 31, "waiting": 33, "again": 33, "busy": 33}
"""ANSI codes: green, red and yellow."""
BAR = "{n_fmt}/{total_fmt} runs |{bar:10}| {elapsed}<{remaining}  {desc}"


def run_fields(run: Run) -> dict[str, str]:
    """Return the values that distinguish a run from other runs of its request."""
    words = dict(zip(run.arguments, (*run.arguments[1:], ""), strict=True))
    file = words.get("--dataset-config-file")
    variant = re.search(r",([^/]+?)(_[^_/=]+shots)?(/|$)", run.folder.as_posix())
    return {
        "method": words["--trainer"],
        "data": Path(file).stem if file else words.get("DATASET.TITLE", ""),
        "target": words.get("--target-domains", ""),
        "shots": words.get("DATASET.NUM_SHOTS", ""),
        "settings": variant[1] if variant else "",
        "seed": words["--seed"],
        "part": run.part,
    }


def run_labels(runs: Sequence[Run]) -> dict[Path, str]:
    """Return the name of each run by its folder: the fields that vary, and `ALWAYS_SHOWN`."""
    fields = {run.folder: run_fields(run) for run in runs}
    varies = {name: len({row[name] for row in fields.values()}) > 1 for name in FIELDS}
    shown = [name for name in FIELDS if name in ALWAYS_SHOWN or varies[name]]
    unit = {"seed": "seed {}", "shots": "{} shots"}
    return {
        folder: "  ".join(unit.get(n, "{}").format(row[n]) for n in shown if row[n])
        for folder, row in fields.items()
    }


def follow(schedule: Schedule, stop: Stop, count: int, ended: list[Outcome]) -> None:
    """Perform the runs under a progress bar; print a line when one ends, and add it to `ended`.

    There is no bar where stderr is no terminal, or where the runs print their own output.
    """
    labels = run_labels(list(schedule.waiting.values()))
    hidden = True if schedule.show == "all" else None  # None: hidden unless stderr is a terminal
    with tqdm(total=count, bar_format=BAR, disable=hidden, leave=False, dynamic_ncols=True) as bar:

        def look() -> None:
            bar.set_description_str(at_work(labels, schedule))

        for outcome in schedule.outcomes(stop, look):
            if outcome.state != "skipped":
                bar.write(outcome_line(outcome, labels[outcome.run.folder]))
            if outcome.final:
                ended.append(outcome)
                bar.update()


def at_work(labels: Mapping[Path, str], schedule: Schedule) -> str:
    """Return the name of one active run, and the number of active runs if there are more."""
    names = [labels[run.folder] for run in schedule.at_work.values()]
    return f"{len(names)} active: " * (len(names) > 1) + names[0] if names else ""


def outcome_line(outcome: Outcome, label: str) -> str:
    """Return the line for a run that ended: its accuracy and seconds, or why it has none."""
    state = coloured(f"{outcome.state:8}", STATE_COLOURS[outcome.state])
    if outcome.state != "finished":
        return f"{state}  {label}: {outcome.reason}"
    result = json.loads((outcome.run.folder / RESULTS_FILE).read_text(encoding="utf-8"))
    return f"{state}  {label}  {result['metrics']['accuracy']:.1f} %  {outcome.seconds:.0f} s"


def coloured(text: str, code: int) -> str:
    """Return a text in colour if stdout is a terminal with colours; see https://no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not sys.stdout.isatty() else f"\x1b[{code}m{text}\x1b[0m"


def print_summary(count: int, ended: Sequence[Outcome]) -> None:
    """Print the number of runs for each outcome, and the log files of failed runs."""
    names = {"skipped": "finished before", "waiting": "without their training"}
    states = Counter(names.get(outcome.state, outcome.state) for outcome in ended)
    print(f"{count} runs: {', '.join(f'{n} {state}' for state, n in states.items())}")
    for outcome in ended:
        log = outcome.run.folder / "log.txt"
        if outcome.state == "failed":
            print(f"failed, see {log if log.is_file() else log.parent}", file=sys.stderr)


# Plans


def print_plan(runs: Sequence[Run]) -> None:
    """Print a table of the plan: methods, data sets, seeds, remaining runs and their time."""
    import pandas as pd  # slow to import: --help should not wait for it

    states = {run.folder: _state(run) for run in runs}
    frame = pd.DataFrame(map(run_fields, runs))
    frame["done"] = [states[run.folder] is State.FINISHED for run in runs]
    frame["time left"] = mean_seconds(runs)
    frame.loc[frame.done, "time left"] = 0.0
    rows = frame.groupby(["method", "data", "settings"], sort=False)
    plan = rows.agg(
        shots=("shots", _words), seeds=("seed", _words), runs=("done", "size"), done=("done", "sum")
    )
    plan["left"] = plan.runs - plan.done
    plan["time left"] = rows["time left"].apply(time_left)
    plan = plan.reset_index()
    given = [name for name in plan if name not in ("settings", "shots") or any(plan[name])]
    rows = [given, *plan[given].to_numpy().tolist()]  # tabulate's own headers are wider
    print(tabulate(rows, tablefmt="plain", disable_numparse=True))
    done = plan.done.sum()
    print(f"\n{len(runs)} runs: {done} done, {len(runs) - done} left (--commands prints them)")
    total = time_left(frame["time left"])
    print(f"time left, one run at a time: {total} (by finished runs of other seeds)")
    for problem, number in Counter(s for s in states.values() if isinstance(s, str)).items():
        print(f"{number} of them: {problem}")


def mean_seconds(runs: Sequence[Run]) -> list[float]:
    """Return, for each run, the mean seconds of finished runs that differ only in seed or domain.

    NaN without such a run. The time to load CLIP and data is not recorded, and not included.
    """
    from causalclip.report.runs import load_results  # loads pandas

    keys = [
        tuple(text for name, text in run_fields(run).items() if name not in ("seed", "target"))
        for run in runs
    ]
    seconds: dict[tuple[str, ...], list[float]] = {}
    places = {run.folder.parent: key for run, key in zip(runs, keys, strict=True)}
    for place, key in places.items():
        seconds.setdefault(key, []).extend(
            (result.training_seconds or 0.0) + result.evaluation.get("seconds", 0.0)
            for result in load_results(place, []).values()  # of every seed
        )
    return [mean(seconds[key]) if seconds[key] else math.nan for key in keys]


def time_left(seconds: Iterable[float]) -> str:
    """Return the sum of the seconds of runs, or that it is unknown for some of them."""
    values = list(seconds)
    known = [value for value in values if not math.isnan(value)]
    total, unknown = sum(known), len(values) - len(known)
    text = f"{total / 3600:.1f} h" if total >= 5400 else f"{total / 60:.0f} min"
    text = text if total >= 90 else f"{total:.0f} s"
    if not unknown:
        return text
    return f"{text} + {unknown} unknown" if total else "unknown"


def _words(column: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(column))


def print_commands(runs: Sequence[Run]) -> None:
    """Print the command of each run, as a comment unless it is to run, and the number of runs."""
    count: Counter[str] = Counter()
    for run in runs:
        state = _state(run)
        name = state if isinstance(state, str) else state.value
        count[name] += 1
        remark = "" if state in (State.TO_RUN, State.STALE) else f"# {name}: "
        print(f"{remark}causalclip train {shlex.join(run.arguments)}")
    print(f"# {len(runs)} runs: {', '.join(f'{n} {name}' for name, n in count.items())}")


def _state(run: Run) -> State | str:
    """Return the state of a run, or why it cannot be run."""
    try:
        return state_of(run)
    except (ValueError, OSError) as error:  # a plan needs no data
        return sentence(error)
