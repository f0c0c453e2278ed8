"""Configuration: Dassl's defaults as a yacs node whose errors suggest the nearest known keys."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import yaml
from dassl.utils.registry import did_you_mean
from yacs.config import CfgNode as YacsNode

__all__ = ["CfgNode", "clean_cfg", "get_cfg_default"]


def get_cfg_default() -> CfgNode:
    """Return a fresh, unfrozen configuration with Dassl 0.6.3's keys and values."""
    return CfgNode(_defaults())


def clean_cfg(cfg: YacsNode, trainer: str) -> None:
    """Delete the nodes of all trainers but `trainer`, for a shorter print(cfg)."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            del cfg.TRAINER[key]


class CfgNode(YacsNode):
    """The root of a yacs tree; merging an unknown key raises the same exception types as yacs does.

    The nodes below the root are yacs's own: yacs merges only nodes of equal type, and `extend_cfg`
    of CoOp and its successors adds yacs nodes.
    """

    @classmethod
    def _create_config_tree_from_dict(cls, dic: dict, key_list: list[str]) -> dict:
        return YacsNode._create_config_tree_from_dict(dic, key_list)

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        return YacsNode._decode_cfg_value(value)

    def merge_from_other_cfg(self, cfg_other: YacsNode) -> None:
        """Merge another node; raise KeyError for an unknown key."""
        try:
            super().merge_from_other_cfg(cfg_other)
        except KeyError as error:
            self._raise_with_nearest(error)

    def merge_from_list(self, cfg_list: list) -> None:
        """Merge [key, value, key, value, ...]; raise AssertionError for an unknown key."""
        try:
            super().merge_from_list(cfg_list)
        except AssertionError as error:
            self._raise_with_nearest(error)

    def _raise_with_nearest(self, error: Exception) -> NoReturn:
        message = str(error.args[0])
        if message.startswith("Non-existent") and ": " in message:
            key = message.rsplit(": ", 1)[1]
            if re.fullmatch(r"TRAINER\.\w+", key):  # the node of a trainer, which was not added
                message += (
                    "; extend_cfg(cfg) of train.py adds a trainer's settings, "
                    "causalclip.plugin.extend_cfg(cfg) causalclip's"
                )
            message += did_you_mean(key, _flat_keys(self))
        raise type(error)(message) from None


def _flat_keys(node: YacsNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, YacsNode):
            yield from _flat_keys(value, f"{prefix}{key}.")


@cache
def _defaults() -> dict:
    return _decoded(yaml.safe_load(Path(__file__).with_name("defaults.yaml").read_text("utf-8")))


def _decoded(value: Any) -> Any:
    """Return a YAML value with texts such as (224, 224) and 5e-4 as tuples and numbers."""
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items()}
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value
