"""What was set beside a run's recipe, and its whole configuration, from results.json alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from causalclip.report.results import Result
from causalclip.report.settings import IGNORED, flat, settings_of
from causalclip.runs.recipes import CONFIGS

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+")
ABSENT = "not in the recipe"


def differences(result: Result) -> list[tuple[str, str, str]]:
    """Key, the recipe's value and this run's, where they differ; of settings that may matter.

    A key is compared that the recipe's files name, as far as they are installed here, or that was
    given on the command line.
    """
    recipe, own = recipe_of(result), dict(flat(result.config))
    keys = [*recipe, *(key for key in given(result.command) if key not in recipe)]
    return [
        (key, said(recipe.get(key, ABSENT)), said(own[key]))
        for key in keys
        if key in own and key not in IGNORED and said(own[key]) != said(recipe.get(key, ABSENT))
    ]


def recipe_of(result: Result) -> dict[str, Any]:
    """The settings of the recipe's files by dotted key; empty where no such file is known."""
    found: dict[str, Any] = {}
    for name in (result.config_name or "").split("+"):
        path = CONFIGS / "trainers" / result.trainer / f"{name}.yaml"
        if name and path.is_file():
            found |= dict(flat(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
    return found


def given(command: Sequence[str]) -> Iterator[str]:
    """The keys of the KEY VALUE pairs of a command line."""
    yield from (word for word in command[:-1] if KEY.fullmatch(word))


def said(value: object) -> str:
    """A value as text; the same for a tuple of YAML's and the list that JSON made of it."""
    if isinstance(value, str) and re.fullmatch(r"\(.*\)", value):
        inner = value[1:-1].strip().rstrip(",")
        return f"[{inner}]"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and re.fullmatch(r"-?[\d.]+e-?\d+", value):
        return f"{float(value):g}"  # YAML 1.1 reads 1e-5 as text
    return str(value)


def whole(result: Result) -> list[tuple[str, str]]:
    """Every setting of the run's own, in the order of their keys."""
    return sorted((key, said(value)) for key, value in settings_of(result).items())
