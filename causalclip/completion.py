"""Names that the shell completes: methods, data sets, backbones, recipes and settings."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import argcomplete

from causalclip.runs.protocols import PROTOCOLS
from causalclip.runs.recipes import CONFIGS, methods, names
from causalclip.settings.check import flatten
from causalclip.settings.config_file import read_config
from causalclip.settings.table import SETTINGS

KNOWN: Mapping[str, Callable[[], Sequence[str]]] = {
    "protocol": lambda: [*PROTOCOLS, "ablation"],
    **dict.fromkeys(("methods", "method", "trainer", "compare"), methods),
    **dict.fromkeys(("datasets", "source"), functools.partial(names, "datasets")),
    "backbone": functools.partial(names, "backbones"),
    **dict.fromkeys(("seeds", "shots", "settings", "opts"), list),
}
"""Completions of an argument, by its `dest`; if none matches, settings are completed."""


def autocomplete(parser: argparse.ArgumentParser) -> None:
    """Print completions for the shell and exit; argcomplete's variables contain the typed words."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command in commands.choices.values():
        for action in command._actions:
            if action.dest in KNOWN and not action.choices:
                completer = functools.partial(_names, KNOWN[action.dest])
                setattr(action, "completer", completer)  # noqa: B010 argcomplete's
            elif action.dest in ("cfg", "recipe"):
                setattr(action, "completer", _recipes)  # noqa: B010
    argcomplete.autocomplete(parser)


def _names(known: Callable[[], Sequence[str]], prefix: str, **context: Any) -> Sequence[str]:
    fitting = [name for name in known() if name.startswith(prefix)]
    return fitting or _settings(**context)


def _recipes(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    chosen = getattr(parsed_args, "methods", None) or methods()
    return sorted({name for method in chosen for name in names(f"trainers/{method}")})


def _settings(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """Return the settings of all runs, and those that the recipes of the chosen methods set."""
    keys, given = set(SETTINGS), vars(parsed_args)
    for method in given.get("methods") or [given.get("trainer") or given.get("method") or ""]:
        for recipe in names(f"trainers/{method}"):
            content = read_config(CONFIGS / "trainers" / method / f"{recipe}.yaml")
            keys.update(key for key, _ in flatten(content))
    return sorted(keys)
