"""The shell scripts: turn their arguments and environment variables into a request.

Each script in scripts/ is one line that calls `main`. What it does is defined here and in
protocols.py, as data.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from causalclip.errors import INPUT_ERRORS, UserError, sentence, unknown
from causalclip.runs.executor import LocalPool
from causalclip.runs.perform import perform, planned, print_table, with_data, with_own
from causalclip.runs.progress import print_commands
from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import recipes_of
from causalclip.runs.request import Request


@dataclass(frozen=True)
class Script:
    """One shell script: its positional arguments and the parts of a protocol that it runs."""

    protocol: str
    arguments: str
    parts: tuple[str, ...] = ()
    table: str = ""
    """Folder of its table below the results, with fields {dataset} and {shots}; empty: no table."""

    @property
    def required(self) -> list[str]:
        """The required positional arguments."""
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
    "reproduce": Script("", "METHOD PROTOCOL [--dry-run] [KEY VALUE ...]", table="."),
}


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Perform a script; return 2 for invalid input, 1 if a run failed.

    `arguments` are the script's name without .sh, then its own arguments. `environment` contains
    the variables that its help lists.
    """
    name, *words = arguments
    script, given = SCRIPTS[name], {key: value for key, value in environment.items() if value}
    try:
        if len(words) < len(script.required):
            usage = f"usage: bash scripts/{name}.sh {script.arguments}"
            raise UserError(f"{usage} (--help explains)")
        return _run_script(name, words, given)
    except INPUT_ERRORS as error:
        print(f"{name}.sh: {sentence(error)}", file=sys.stderr)
        return 2


def _run_script(name: str, words: Sequence[str], given: Mapping[str, str]) -> int:
    script, dry = SCRIPTS[name], name == "reproduce" and "--dry-run" in words
    words = [word for word in words if not (dry and word == "--dry-run")]
    asked = _request(name, words, given)
    data = Path(given["DATA"]) if "DATA" in given else None
    request = with_data(_from_environment(asked, given, data), data, dry=dry)
    runs = planned(request, dry=dry)
    if dry:
        print_commands(runs)
    show = "runs" if name == "reproduce" else "all"
    status = 0 if dry else perform(runs, LocalPool(threads=None), show)
    if status or not script.table or given.get("TABLE") == "no":
        return status
    shots, protocol = request.all_shots[0], request.protocol.name
    folder = script.table.format(dataset=request.datasets[0], shots=shots)
    options = ("--protocol", protocol) if protocol == "fewshot" else ()
    if name == "reproduce":
        options = ("--protocol", protocol, "--methods", *request.methods, "--against")
    return print_table(request.results / folder, *options, dry=dry)


def _request(name: str, words: Sequence[str], given: Mapping[str, str]) -> Request:
    script = SCRIPTS[name]
    named = dict(zip(script.required, words, strict=False))
    rest = words[len(named) :]
    protocol = named.get("PROTOCOL", script.protocol)
    if protocol not in PROTOCOLS:
        raise UserError(unknown("protocol", protocol, PROTOCOLS))
    datasets = [named["DATASET"]] if "DATASET" in named else []
    seeds = given.get("SEEDS", "1 2 3")
    if name == "reproduce":
        datasets = given.get("DATASETS", " ".join(PROTOCOLS[protocol].datasets)).split()
    elif script.arguments == _MANY and rest:
        seeds, *rest = rest
    return Request(
        PROTOCOLS[protocol],
        methods=(words[0],),
        datasets=tuple(datasets),
        seeds=(named["SEED"],) if "SEED" in named else _seeds(seeds),
        parts=script.parts,
        settings=tuple(rest),
    )


def _seeds(text: str) -> tuple[str, ...]:
    if not re.fullmatch(r" *[0-9]+( +[0-9]+)* *", text):
        raise UserError(f"SEEDS must be numbers, got {text} (KEY VALUE pairs come after them)")
    return tuple(text.split())


def _from_environment(request: Request, given: Mapping[str, str], data: Path | None) -> Request:
    """Add the values of environment variables to a request, and resolve its data sets."""
    shots = given.get("SHOTS", "")
    variables = recipes_of(request.methods[0]).variables
    pairs = [(key, given[name]) for name, key in variables.items() if name in given]
    request = replace(
        request,
        # Only a protocol with several numbers of shots takes several.
        shots=tuple(shots.split() if len(request.protocol.shots) > 1 else [shots] * bool(shots)),
        output=Path(given.get("OUTPUT", "output")),
        recipe=given.get("CFG", ""),
        source=given.get("SOURCE", "imagenet"),
        load_epoch=given.get("LOADEP", ""),
        settings=(*(word for pair in pairs for word in pair), *request.settings),
    )
    return with_own(request, given.get("BACKBONE", ""), data)
