"""The registry of trainers."""

from __future__ import annotations

from typing import Any

from dassl.utils import Registry

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: Any) -> Any:
    """Build the trainer that TRAINER.NAME names.

    Raises:
        UnknownNameError: nobody registered it.
    """
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    return trainer(cfg)
