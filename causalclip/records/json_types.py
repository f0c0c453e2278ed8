"""JSON values: check them against type annotations; convert numbers that JSON does not have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict


def fits(value: object, hint: Any) -> bool:
    """Return whether a JSON value is of the annotated type.

    Supported are the types of JSON, `list[T]`, `dict[str, T]`, unions, a TypedDict, and Any. A bool
    is not a number here, and an int is also a float.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is UnionType:
        return any(fits(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, args[1]) for item in value.values())
    if is_typeddict(hint):
        return isinstance(value, dict) and all(
            name in value and fits(value[name], kind) for name, kind in get_type_hints(hint).items()
        )
    if hint in (int, float):
        allowed = (int, float) if hint is float else int
        return isinstance(value, allowed) and not isinstance(value, bool)
    return isinstance(value, hint)


def type_name(hint: Any) -> str:
    """Return an annotation as text: `dict[str, float]`, `str | None`, `TrainedOn`."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def nulls_for_not_finite(value: Any) -> Any:
    """Return a JSON value with NumPy numbers as Python's, and None for NaN and infinities."""
    if isinstance(value, dict):
        return {key: nulls_for_not_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [nulls_for_not_finite(item) for item in value]
    if hasattr(value, "item"):  # a NumPy number; importing NumPy here would slow commands down
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def nan_for_nulls(value: Any) -> Any:
    """Return a JSON value of measured numbers with NaN for every None, at any depth."""
    if isinstance(value, dict):
        return {key: nan_for_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nan_for_nulls(item) for item in value]
    return math.nan if value is None else value


def plain(node: Any) -> Any:
    """Return a configuration node as JSON values, its keys in order."""
    if isinstance(node, Mapping):
        return {key: plain(node[key]) for key in sorted(node)}
    if isinstance(node, (list, tuple)):
        return [plain(value) for value in node]
    return node
