"""Training: the registry of trainers, and the training loop that they extend."""

from __future__ import annotations

from typing import Any

from dassl.engine.trainer import SimpleTrainer, TrainerBase, TrainerX
from dassl.utils import Registry

__all__ = ["TRAINER_REGISTRY", "SimpleTrainer", "TrainerBase", "TrainerX", "build_trainer"]

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: Any) -> Any:
    """Build the trainer that TRAINER.NAME names; raise UnknownNameError if there is none."""
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    if cfg.VERBOSE:
        print(f"Loading trainer: {cfg.TRAINER.NAME}")
    return trainer(cfg)
