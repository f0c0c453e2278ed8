"""yacs' CfgNode, whose errors about unknown keys also name the nearest known keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from dassl.utils.names import did_you_mean
from yacs.config import CfgNode as YacsNode


def _flat_keys(node: YacsNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, YacsNode):
            yield f"{prefix}{key}"
            yield from _flat_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


class CfgNode(YacsNode):
    """The root of a yacs tree; merging an unknown key raises the same exception types as yacs does.

    The nodes below it are yacs' own, because yacs merges nodes of equal type only and the family's
    extend_cfg adds yacs nodes.
    """

    @classmethod
    def _create_config_tree_from_dict(cls, dic: dict, key_list: list[str]) -> dict:
        return YacsNode._create_config_tree_from_dict(dic, key_list)

    @classmethod
    def _decode_cfg_value(cls, value: Any) -> Any:
        return YacsNode._decode_cfg_value(value)

    def merge_from_other_cfg(self, cfg_other: YacsNode) -> None:
        """Merge another node into this one.

        Raises:
            KeyError: a key that does not exist here; names the nearest.
        """
        try:
            super().merge_from_other_cfg(cfg_other)
        except KeyError as error:
            self._raise_with_nearest(error)

    def merge_from_list(self, cfg_list: list) -> None:
        """Merge [key, value, key, value, ...].

        Raises:
            AssertionError: a key that does not exist; names the nearest.
        """
        try:
            super().merge_from_list(cfg_list)
        except AssertionError as error:
            self._raise_with_nearest(error)

    def _raise_with_nearest(self, error: Exception) -> NoReturn:
        message = str(error.args[0])
        if message.startswith("Non-existent") and ": " in message:
            key = message.rsplit(": ", 1)[1]
            message += did_you_mean(key, list(_flat_keys(self)))
        raise type(error)(message) from None
