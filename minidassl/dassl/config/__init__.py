"""Configuration: a copy of the defaults, and removing other trainers' nodes before printing."""

from __future__ import annotations

from dassl.config.defaults import DEFAULTS
from dassl.config.node import CfgNode

__all__ = ["CfgNode", "clean_cfg", "get_cfg_default"]


def get_cfg_default() -> CfgNode:
    """Return a fresh, unfrozen configuration with Dassl 0.6.3's keys and values."""
    return CfgNode(DEFAULTS)


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Drop the nodes of all trainers but `trainer`, so that print(cfg) shows what matters."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            del cfg.TRAINER[key]
