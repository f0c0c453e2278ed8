"""Configuration files are data: YAML with one mapping in it, and never Python."""

from __future__ import annotations

from pathlib import Path

import yaml
from yacs.config import CfgNode

SUFFIXES = (".yaml", ".yml", "")


def merge_file(cfg: CfgNode, path: str) -> None:
    """Override settings by those of a file.

    Raises:
        ValueError: not YAML, or no mapping of known settings; names the file, and the line.
        OSError: it cannot be read.
    """
    place = Path(path)
    if place.suffix not in SUFFIXES:  # yacs would run a .py
        raise ValueError(f"{path}: a configuration file must end in .yaml or .yml")
    try:
        content = yaml.safe_load(place.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: no YAML: {getattr(error, 'problem', error)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8: {error}") from error
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits, a day that is none
        raise ValueError(f"{path}: {error}") from error
    if content is None:
        return
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold KEY: VALUE pairs, got a {type(content).__name__}")
    try:
        cfg.merge_from_other_cfg(type(cfg)(content))
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
        said = " ".join(str(error.args[0]).split()) if error.args else type(error).__name__
        raise ValueError(f"{path}: {said:.500}") from error
    except RecursionError:  # an alias of what it stands in
        raise ValueError(f"{path} holds a mapping that holds itself") from None
