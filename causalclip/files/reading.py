"""Read untrusted files: only regular files of limited size, and YAML without tags."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import yaml

MOST_YAML_BYTES = 100_000
MOST_YAML_NODES = 10_000
"""Limit on the values in a file, with each alias replaced by its values."""
MOST_YAML_DEPTH = 50
"""Limit on the nesting of values: yacs copies each level once for each level above it."""
MOST_YAML_DIGITS = 40
"""Limit on the digits of an integer: Python cannot print very long ones, and none is needed."""


def require_regular(path: str | os.PathLike) -> int:
    """Return the size of a regular file in bytes.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the path is a folder, a pipe or a device, which may have no end.
    """
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe, a socket or a device"
        raise ValueError(f"{path} must be a regular file, got {kind}")
    return state.st_size


def read_bounded(path: str | os.PathLike, *, most: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a regular file, or one of more than `most` bytes.
    """
    if (size := require_regular(path)) > most:
        raise ValueError(f"{path} must have at most {most:,} bytes, got {size:,}")
    return Path(path).read_bytes()


def load_yaml(path: str | os.PathLike) -> Any:
    """Return the content of a YAML file.

    Raises:
        ValueError: not YAML, with tags, not UTF-8, or too large; names the file and, where known,
            the line.
        OSError: it cannot be read.
    """
    content = read_bounded(path, most=MOST_YAML_BYTES)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8: {error}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: str | os.PathLike) -> Any:
    """Return the content of YAML from the file `path`; raise ValueError as `load_yaml`."""
    try:
        return yaml.load(text, _BoundedLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise ValueError(f"{path}{line}: no YAML: {problem}") from error
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits, or an impossible date
        raise ValueError(f"{path}: {error}") from error


class _BoundedLoader(yaml.SafeLoader):
    """Refuse aliases that expand to too many values, as in a "billion laughs" attack."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        values, depth = _size(node, {}) if node is not None else (0, 0)
        if values > MOST_YAML_NODES:
            raise ValueError(f"its aliases stand for more than {MOST_YAML_NODES:,} values")
        if depth > MOST_YAML_DEPTH:
            raise ValueError(f"it is nested more than {MOST_YAML_DEPTH} levels deep")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MOST_YAML_DIGITS:
            raise ValueError(
                f"a number of more than {MOST_YAML_DIGITS} digits: {node.value:.20}..."
            )
        return super().construct_yaml_int(node)


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_yaml_int)


def _size(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the number of values in a node, with its aliases expanded, and their depth.

    Raises:
        ValueError: a node that contains itself.
    """
    if id(node) not in known:
        known[id(node)] = (0, 0)  # being counted
        parts: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        sizes = [_size(part, known) for part in parts]
        values, depths = zip(*sizes, strict=True) if sizes else ((), ())
        known[id(node)] = (1 + sum(values), 1 + max(depths, default=0))
    elif known[id(node)] == (0, 0):
        raise ValueError("it has a value that holds itself")
    return known[id(node)]
