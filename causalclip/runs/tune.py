"""`causalclip tune`: choose a method's settings on training and validation images alone."""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from causalclip.errors import UserError, prints_errors
from causalclip.files.atomic import replacing
from causalclip.records.searches import SearchRecord, Trial, write_search
from causalclip.runs import flags
from causalclip.runs.backbones import named_backbone, start_of
from causalclip.runs.executor import Executor, executor_of, in_parallel
from causalclip.runs.trials import Search, begin, ended, perform_trial, points, space_of

if TYPE_CHECKING:
    import optuna

    from causalclip.runs.data_source import DataSource

TABLE_SEEDS = range(1, 6)
"""Seeds of published tables; a search must not use them."""
TRIALS = 20
_DESCRIPTION = """Choose a method's settings for your data and CLIP; test images are never read.

    causalclip tune CoOp --datasets photos --backbone ViT-B/16 --trials 30
    causalclip tune CDC --datasets dtd eurosat --protocol base2new --minutes 120 --jobs 2

The first trial is the recipe. The same command resumes. docs/tune.md explains the search.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options and of KEY VALUE pairs, which every trial uses."""
    p = argparse.ArgumentParser(
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[flags.executor_flags()],
    )
    add = p.add_argument
    add("method", metavar="METHOD", help="trainer, for example CDC")
    add("--datasets", nargs="+", required=True, metavar="DATA", help="names, folders or files")
    add("--backbone", default="", help="a CLIP by name or file (default: the recipe's)")
    add("--protocol", choices=("fewshot", "base2new"), default="fewshot")
    add("--trials", type=int, metavar="N", help=f"in all (default: {TRIALS}, if no --minutes)")
    add("--minutes", type=float, metavar="M", help="begin no trial after so many minutes")
    add("--shots", default="16", metavar="N", help="images a class, or all (default: 16)")
    add("--seeds", nargs="+", type=int, metavar="N", default=[11, 12], help="default: 11 12")
    add("--recipe", default="", help="to start from (default: the one for the backbone)")
    add("--data", default="", help="folder of the data sets (default: $DATA, or data)")
    add("--output", type=Path, default=Path("output/tune"), help="default: output/tune")
    flags.add_imports(p)
    flags.add_settings(p)
    return p


def search_of(args: argparse.Namespace) -> Search:
    """Return the search of the parsed options, checked.

    Raises:
        UserError: a method without a search space, seeds of the tables, or an unknown name.
        ValueError, OSError: data that cannot be used.
    """
    from causalclip.data.catalogue import BUNDLED_NAMES
    from causalclip.plugin import register_imports
    from causalclip.runs.configuration import trainer_class
    from causalclip.runs.data_source import resolve_data

    register_imports(args.imports)
    kind = trainer_class(args.method)
    _check_numbers(args)
    sources = [_absolute(resolve_data(word, args.data)) for word in args.datasets]
    bundled = all(source.name in BUNDLED_NAMES for source in sources)
    if bundled:
        Path(sources[0].settings["DATASET.ROOT"]).mkdir(parents=True, exist_ok=True)
    cell = (args.protocol, sources[0].name, args.shots)
    backbone = named_backbone(args.backbone) if args.backbone else None
    start = start_of(args.method, args.recipe, backbone, cell, bundled=bundled)
    words = zip(args.settings[::2], args.settings[1::2], strict=True)
    pairs = {"DATASET.NUM_SHOTS": -1 if args.shots == "all" else args.shots, **dict(words)}
    names = "+".join(source.name for source in sources)
    where = Path(backbone.name if backbone else "", args.method, names)
    search = Search(
        args.method,
        start,
        args.protocol,
        tuple(sources),
        tuple(args.seeds),
        pairs,
        Path(args.output, where, f"{args.protocol}_{args.shots}shots").absolute(),
        space={},
        imports=tuple(args.imports),
    )
    cfg = search.cfg(sources[0])
    if args.protocol == "base2new" and not kind.knows_other_classes(cfg.TRAINER[kind.config_node]):
        raise UserError(f"{args.method} cannot name new classes: use --protocol fewshot")
    return replace(search, space=space_of(kind, cfg, fixed=pairs))


def _check_numbers(args: argparse.Namespace) -> None:
    if used := sorted(set(args.seeds) & set(TABLE_SEEDS)):
        raise UserError(f"--seeds must not be of the tables', 1 to 5, got {used[0]}")
    for name in ("trials", "minutes"):
        if (value := getattr(args, name)) is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} must be positive, got {value:g}")
    if args.shots != "all" and not re.fullmatch("[1-9][0-9]*", args.shots):
        raise UserError(f"--shots must be a positive number or all, got {args.shots}")


def _absolute(source: DataSource) -> DataSource:
    root = str(Path(source.settings["DATASET.ROOT"]).absolute())
    return replace(source, settings={**source.settings, "DATASET.ROOT": root})


def numbers(search: Search, study: optuna.Study, args: argparse.Namespace) -> Iterator[int]:
    """Yield a number for each trial to start, until there are enough or the time is over."""
    wanted = args.trials or (math.inf if args.minutes else TRIALS)
    if every := points(search.space):
        wanted = min(wanted, 1 + len(every))
    end = time.monotonic() + 60 * (args.minutes or math.inf)
    number = len(ended(study))
    while number < wanted and time.monotonic() < end:
        yield number
        number += 1


def line(trial: optuna.trial.FrozenTrial) -> str:
    """Return a trial's number, score and settings."""
    pairs = trial.user_attrs.get("settings", {}).items()
    what = " ".join(f"{key} {value}" for key, value in pairs) or "the recipe"
    scored = f"{trial.value:.2f}" if trial.state.name == "COMPLETE" else trial.state.name.lower()
    return f"{trial.number:5} {scored:>7}  {what} {trial.user_attrs.get('error', '')}".rstrip()


def write_recipe(search: Search, study: optuna.Study, command: str) -> Path:
    """Write the best trial's settings as a configuration, with their origin in comments."""
    from causalclip.settings.check import flatten
    from causalclip.settings.config_file import read_config

    best, request = study.best_trial, study.user_attrs["request"]
    cfg = dict(flatten(search.cfg(search.sources[0], chosen=best.user_attrs["settings"])))
    keys = [key for file in search.start.files for key, _ in flatten(read_config(file))]
    content: dict[str, Any] = {}
    for key in [*keys, *search.start.fitting, *best.user_attrs["settings"], *search.pairs]:
        *parents, last = key.split(".")
        node = content
        for name in parents if parents[:1] != ["DATASET"] else ():
            node = node.setdefault(name, {})
        if node is not content:
            value = cfg[key]
            node[last] = list(value) if isinstance(value, tuple) else value
    figure = "validation accuracy" if search.protocol == "fewshot" else "HM of held-out classes"
    header = [
        f"{search.method}, chosen on training and validation images alone. Command: {command}",
        f"Recipe it started from: {search.start.recipe.name}",
        f"Seeds: {' '.join(map(str, search.seeds))}. Images (sha256):",
        *(
            f"  {name}: train {digest['train'][:16]}, val {digest['val'][:16]}"
            for name, digest in request["data"].items()
        ),
        f"Best: trial {best.number}. All trials (mean {figure}, per cent):",
        *map(line, ended(study)),
    ]
    path = search.folder / f"tuned_{search.folder.name}.yaml"
    with replacing(path) as part:
        body = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
        part.write_text("".join(f"# {row}\n" for row in header) + "\n" + body, encoding="utf-8")
    return path


def record_of(search: Search, study: optuna.Study, command: str, path: Path) -> SearchRecord:
    """Return the content of search.json."""
    trials = []
    for trial in ended(study):
        reported = trial.intermediate_values
        seconds = trial.duration.total_seconds() if trial.duration else None
        trials.append(
            Trial(
                number=trial.number,
                end=trial.user_attrs.get("error") or trial.state.name.lower(),
                score=reported[max(reported)] if trial.value is None and reported else trial.value,
                seconds=seconds,
                settings=trial.user_attrs.get("settings", {}),
            )
        )
    return SearchRecord(
        method=search.method,
        protocol=search.protocol,
        command=command,
        recipe=search.start.recipe.name,
        result=path.name,
        seeds=list(search.seeds),
        data=study.user_attrs["request"]["data"],
        best=study.best_trial.number,
        trials=trials,
    )


@prints_errors("tune")
def main(arguments: Sequence[str] | None = None) -> int:
    """Search and write the recipe; return 2 for invalid input, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    args = flags.parse(arguments, parser())
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError("tune needs Optuna: pip install 'causalclip[tune]'") from error
    from causalclip.files.lock import holding

    search, executor = search_of(args), executor_of(args)
    executor.check()
    try:
        with holding(search.folder):
            study = searched(search, executor, args)
            command = f"causalclip tune {shlex.join(arguments)}"
            path = write_recipe(search, study, command)
            write_search(search.folder, record_of(search, study, command, path))
    except KeyboardInterrupt:
        print("stopped: repeat the command to continue", file=sys.stderr)
        return 130
    print(f"best: {line(study.best_trial).strip()}\n{path}")
    return 0


def searched(search: Search, executor: Executor, args: argparse.Namespace) -> optuna.Study:
    """Perform the remaining trials; return the study.

    Raises:
        UserError: no trial has a score; or as `begin`.
    """
    study = begin(search)
    recipe, keys = search.start.recipe.name, ", ".join(search.space)
    print(f"{search.method} from the recipe {recipe}, choosing {keys}", flush=True)
    shown = {trial.number for trial in ended(study)}
    tasks = ((n, perform_trial, (search, n)) for n in numbers(search, study, args))
    try:
        for _ in in_parallel(executor, tasks):
            for trial in ended(study):
                if trial.number not in shown:
                    print(line(trial), flush=True)
                    shown.add(trial.number)
    finally:
        executor.close()
    if not any(trial.state.name == "COMPLETE" for trial in study.trials):
        raise UserError("no trial ended with a score: give more --trials or --minutes")
    return study
