"""YAML files of settings, which may build on another file: `_BASE_: other.yaml`."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from causalclip.files.reading import load_yaml
from causalclip.settings.table import SETTINGS

BASE_KEY = "_BASE_"
SUFFIXES = (".yaml", ".yml", "")
MOST_BASES = 10


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the settings of a YAML file, on top of those of the file that `_BASE_` names.

    A relative `_BASE_` is looked up in the folder of the file that names it. Mappings are merged,
    every other value replaces the base's, as in fvcore and detectron2.

    Raises:
        ValueError: not YAML, no mapping, too large, or a chain of bases that has no end; names the
            file, and the line.
        OSError: a file cannot be read.
    """
    place, settings, chain = Path(path), {}, []
    while True:
        content = _read_file(place)
        settings = _merged(content, settings)
        base = settings.pop(BASE_KEY, None)
        if base is None:
            return settings
        if not isinstance(base, str) or not base:
            raise ValueError(f"{place}: {BASE_KEY} must be the path of a YAML file, got {base!r}")
        chain.append(place.resolve())
        base_file = place.parent / Path(base).expanduser()
        if not base_file.is_file():
            raise ValueError(f"{place}: {BASE_KEY} names {base_file}, which does not exist")
        if base_file.resolve() in chain:
            raise ValueError(f"{place}: {BASE_KEY} names {base_file}, which is based on this file")
        if len(chain) > MOST_BASES:
            raise ValueError(f"{path} must have at most {MOST_BASES} files below it by {BASE_KEY}")
        place = base_file


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base's settings, overridden by `own`."""
    both = {**base, **own}
    for key in base.keys() & own.keys():
        if isinstance(base[key], Mapping) and isinstance(own[key], Mapping):
            both[key] = _merged(base[key], own[key])
    return both


def _read_file(path: Path) -> dict[str, Any]:
    """Return the mapping of one file."""
    if path.suffix not in SUFFIXES:  # yacs would run a .py
        raise ValueError(f"{path}: a configuration file must end in .yaml or .yml")
    content = load_yaml(path)
    if not isinstance(content, dict | NoneType):
        raise ValueError(f"{path} must hold KEY: VALUE pairs, got a {type(content).__name__}")
    return content or {}


# Text stays text: yacs reads a text `2024` as a number wherever it merges


def typed_value(key: str, word: Any, default: Any) -> Any:
    """Return a VALUE in the form that yacs needs: `2024` stays text if the setting is text."""
    if isinstance(word, str) and _holds_texts(key) and word[:1] in ("[", "("):
        word = yaml.load(f"[{word[1:-1]}]", Loader=yaml.BaseLoader)
    return as_text(key, default, word)


def _holds_texts(key: str) -> bool:
    """Return whether a setting is a list of texts."""
    return key in SETTINGS and SETTINGS[key].allowed.allows(["2024"])


def as_text(key: str, default: Any, value: Any) -> Any:
    """Return a value in a form that yacs, which parses text as Python, keeps as text if needed.

    For example, a folder may be called 2024. Mappings are converted key by key.
    """
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        prefix = f"{key}." if key else ""
        return {k: as_text(f"{prefix}{k}", default.get(k), item) for k, item in value.items()}
    if isinstance(value, (list, tuple)) and _holds_texts(key):
        return [str(item) for item in value]
    if not isinstance(default, str) or not isinstance(value, (str, int, float, date)):
        return value
    if isinstance(value, bool):  # YAML's yes and no, whose spelling is lost
        return value
    try:
        decoded = ast.literal_eval(str(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # long text can take too much
        return repr(str(value))
    return value if decoded is None or isinstance(decoded, str) else repr(str(value))
