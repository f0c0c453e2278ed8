"""The family's shell scripts: their arguments and environment variables as a request.

Each script in scripts/ is a line that calls this; what it does is data here and in protocols.py.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from causalclip.runs.local import Local
from causalclip.runs.nearest import unknown
from causalclip.runs.perform import perform, planned, show, table
from causalclip.runs.plan import PlanError, Request
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import Context


@dataclass(frozen=True)
class Script:
    """One shell script: its positional arguments and the parts of a protocol that it runs."""

    protocol: str
    arguments: str
    parts: tuple[str, ...] = ()
    table: str = ""
    """Where the folder of its table lies below the results; {dataset} and {shots} are filled in."""

    @property
    def required(self) -> list[str]:
        """The positional arguments that must come."""
        return re.sub(r"\[.*", "", self.arguments).split()


_ONE = "TRAINER DATASET SEED [KEY VALUE ...]"
_MANY = 'TRAINER DATASET ["SEEDS" [KEY VALUE ...]]'
SCRIPTS = {
    "base2new_train": Script("base2new", _ONE, ("train_base",)),
    "base2new_test": Script("base2new", _ONE, ("test_new",)),
    "xd_train": Script("xd", "TRAINER SEED [KEY VALUE ...]", ("train",)),
    "xd_test": Script("xd", _ONE, ("test",)),
    "dg_test": Script("dg", _ONE, ("test",)),
    "fewshot": Script("fewshot", _MANY, table="{dataset}"),
    "lodo": Script("lodo", _MANY, table="lodo/{dataset}/shots_{shots}"),
    "openclass": Script("openclass", _MANY, table="openclass/test/{dataset}/shots_{shots}"),
    "reproduce": Script("", "METHOD PROTOCOL [--dry-run] [KEY VALUE ...]"),
}


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Do what a script asks; 2 for what cannot be run, 1 where a run failed.

    Args:
        arguments: the script's name without .sh, and its arguments.
        environment: the variables that its help lists.
    """
    name, *words = arguments
    script, given = SCRIPTS[name], {key: value for key, value in environment.items() if value}
    try:
        if len(words) < len(script.required):
            usage = f"usage: bash scripts/{name}.sh {script.arguments}"
            raise PlanError(f"{usage} (--help explains)")
        if name == "reproduce":
            return _reproduce(words, given)
        return _run_script(name, words, given)
    except PlanError as error:
        print(f"{name}.sh: {error}", file=sys.stderr)
        return 2


def _run_script(name: str, words: Sequence[str], given: Mapping[str, str]) -> int:
    script = SCRIPTS[name]
    request = _request(script, words, given)
    runs = planned(_with_data(request, given))
    status = perform(runs, _engine(given))
    if script.table and given.get("TABLE") != "no":
        shots = request.all_shots[0]
        folder = script.table.format(dataset=request.datasets[0], shots=shots)
        options = ("--protocol", "fewshot") if script.protocol == "fewshot" else ()
        status = status or table(request.results / folder, *options)
    return status


def _request(script: Script, words: Sequence[str], given: Mapping[str, str]) -> Request:
    named, rest = dict(zip(script.required, words, strict=False)), words[len(script.required) :]
    if script.arguments == _MANY:
        seeds, rest = _seeds(rest[0] if rest else given.get("SEEDS", "1 2 3")), rest[1:]
    else:
        seeds = (named["SEED"],)
    request = Request(
        PROTOCOLS[script.protocol],
        methods=(named["TRAINER"],),
        datasets=(named["DATASET"],) if "DATASET" in named else (),
        seeds=seeds,
        parts=script.parts,
        settings=tuple(rest),
    )
    return _from_environment(request, given)


def _seeds(text: str) -> tuple[str, ...]:
    if not re.fullmatch(r" *[0-9]+( +[0-9]+)* *", text):
        raise PlanError(f"SEEDS must be numbers, got {text} (KEY VALUE pairs come after them)")
    return tuple(text.split())


def _from_environment(request: Request, given: Mapping[str, str]) -> Request:
    """The variables that every script reads, DATA and SEEDS left out."""
    shots = given.get("SHOTS", "")
    context = Context(given.get("NCTX", "16"), given.get("CSC", "False"), given.get("CTP", "end"))
    return replace(
        request,
        # Several numbers only where a protocol has several.
        shots=tuple(shots.split() if len(request.protocol.shots) > 1 else [shots] * bool(shots)),
        output=Path(given.get("OUTPUT", "output")),
        recipe=given.get("CFG", ""),
        backbone=given.get("BACKBONE", ""),
        source=given.get("SOURCE", "imagenet"),
        load_epoch=given.get("LOADEP", ""),
        context=context,
    )


def _with_data(request: Request, given: Mapping[str, str]) -> Request:
    if "DATA" not in given:
        raise PlanError("DATA is not set: export DATA=/path/to/the/data/sets")
    if not Path(given["DATA"]).is_dir():
        raise PlanError(f"DATA={given['DATA']} is not a folder")
    return replace(request, data=Path(given["DATA"]))


def _engine(given: Mapping[str, str]) -> Local:
    """One run after the other, shown as PROGRESS says; threads as the environment says."""
    return Local(show="epochs" if given.get("PROGRESS") == "brief" else "all", threads=None)


def _reproduce(words: Sequence[str], given: Mapping[str, str]) -> int:
    """Every run of a protocol for one method, then ours beside the published figures."""
    method, name, *settings = words
    dry = settings[:1] == ["--dry-run"]
    if name not in PROTOCOLS:
        raise PlanError(unknown("protocol", name, PROTOCOLS))
    protocol = PROTOCOLS[name]
    request = Request(
        protocol,
        methods=(method,),
        datasets=tuple(given.get("DATASETS", " ".join(protocol.datasets)).split()),
        seeds=_seeds(given.get("SEEDS", "1 2 3")),
        settings=tuple(settings[dry:]),
    )
    request = _from_environment(request, given)
    runs = planned(request if dry else _with_data(request, given), dry=dry)
    if dry:
        show(runs, request.results)
    status = 0 if dry else perform(runs, _engine(given))
    summary = ("--protocol", name, "--trainer", method, "--against")
    return status or table(request.results, *summary, dry=dry)
