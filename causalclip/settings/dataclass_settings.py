"""Settings of a method stated once, as a frozen dataclass: setting `FIELD` is the field `field`.

A field has the setting's default, its type gives the allowed values (`Literal`, `bool`, `str`), and
the docstring below it is the help.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from causalclip.settings.constraints import Constraint, boolean, list_of, one_of, text
from causalclip.settings.table import Setting

ConfigT = TypeVar("ConfigT")


def settings_of(
    kind: type[Any], allowed: Mapping[str, Constraint], blocks: Mapping[str, str] | None = None
) -> dict[str, Setting]:
    """Return the table of a method's settings, one row per field of a frozen dataclass.

    `allowed` has constraints by key that the types do not state, such as the range of a number;
    `blocks` is `Setting.blocks` by key.
    """
    hints, helps = get_type_hints(kind), _docstrings(kind)
    rows = {}
    for field in fields(kind):
        key, default = field.name.upper(), field.default
        default = list(default) if isinstance(default, tuple) else default  # as YAML reads it
        constraint = allowed[key] if key in allowed else _by_type(hints[field.name])
        rows[key] = Setting(
            default, constraint, helps[field.name], blocks=(blocks or {}).get(key, "")
        )
    return rows


def config_from(kind: type[ConfigT], settings: Mapping[str, Any], *, where: str) -> ConfigT:
    """Build a config from the settings named like its fields, below the node `where`.

    Raises:
        ValueError: settings that exclude each other; names their keys.
    """
    values = {field.name: settings[field.name.upper()] for field in fields(kind)}  # type: ignore[arg-type]
    frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    with errors_by_key(kind, where=where):
        return kind(**frozen)


@contextmanager
def errors_by_key(kind: type[Any], *, where: str) -> Iterator[None]:
    """Replace each `field` in backticks in errors by the key that users type, WHERE.FIELD.

    Raises:
        ValueError: the error from inside the context, reworded.
    """
    names = "|".join(field.name for field in fields(kind))
    try:
        yield
    except ValueError as error:
        keyed = re.sub(f"`({names})`", lambda name: f"{where}.{name[1].upper()}", str(error))
        raise ValueError(keyed) from error


def _by_type(hint: Any) -> Constraint:
    if get_origin(hint) is Literal:
        return one_of(get_args(hint))
    if get_origin(hint) is tuple:  # of any length: tuple[item, ...]
        return list_of(_by_type(get_args(hint)[0]))
    return {bool: boolean(), str: text()}[hint]


def _docstrings(kind: type[Any]) -> dict[str, str]:
    """Return the docstring below each field, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
