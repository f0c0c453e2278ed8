"""Check a configuration against the table of settings, before any work; query the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yacs.config import CfgNode

from causalclip.settings.table import SETTINGS, SHARED, Setting

LONGEST_TEXT = 10_000


def check_cfg(cfg: CfgNode, node: str, rows: Mapping[str, Setting]) -> None:
    """Raise for the first setting that its row does not allow; `rows` are those of `node`.

    Raises:
        ValueError: names the key, what is allowed and what came; or, without such a node in the
            configuration, the line that train.py lacks.
    """
    if node not in cfg.TRAINER:
        raise ValueError(
            f"the configuration has no TRAINER.{node}: call causalclip.plugin.extend_cfg(cfg) at "
            "the end of extend_cfg in train.py"
        )
    check_settings(cfg.TRAINER[node], {**SHARED, **rows}, where=f"TRAINER.{node}.")
    if not cfg.MODEL.BACKBONE.NAME:
        raise ValueError("MODEL.BACKBONE.NAME is empty: name a CLIP, for example tiny")
    check_settings(dict(flatten(cfg)), SETTINGS, where="")
    if cfg.TEST.get("CONFORMAL") and cfg.TEST.SPLIT != "test":
        raise ValueError(
            "TEST.CONFORMAL calibrates on the validation split and needs TEST.SPLIT test, got "
            f"{cfg.TEST.SPLIT}"
        )


def check_settings(values: Mapping[str, Any], rows: Mapping[str, Setting], *, where: str) -> None:
    """Raise for the first value that its row does not allow; `where` is a prefix of the keys.

    A key without a row is not checked.

    Raises:
        ValueError: names the key, what is allowed and what came.
    """
    for key, row in rows.items():
        if key not in values:
            continue
        value = values[key]
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise ValueError(
                f"{where}{key} must have at most {LONGEST_TEXT:,} characters, got {len(value):,}"
            )
        if not row.allowed.allows(value):
            raise ValueError(f"{where}{key} must be {row.allowed.words}, got {value!r:.500}")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each leaf of a configuration."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# Facts of a key


def changes_results(key: str) -> bool:
    """Return whether runs that differ in a setting are different runs."""
    return key not in SETTINGS or not SETTINGS[key].neutral


def base_node(node: Mapping[str, Any]) -> str:
    """Return the node of the method that BASE names in the `node` of CDC; "" for none."""
    return str(node.get("BASE") or "").upper()


def separates_methods(key: str) -> bool:
    """Return whether results that differ in a setting are rows of different methods in a table."""
    return key not in SETTINGS or not (SETTINGS[key].neutral or SETTINGS[key].shared)


def names_file(key: str) -> bool:
    """Return whether the value of a setting may be a path: then the file's content is compared."""
    if key in SETTINGS:
        return SETTINGS[key].names_file
    return key.rpartition(".")[2] in ("PROJECTION", "CAPTIONS")  # settings of methods
