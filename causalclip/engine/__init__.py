"""The two base classes of trainers, and the parts that they are built from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causalclip.engine.feature_trainer import FeatureTrainer
    from causalclip.engine.prompt_trainer import PromptTrainer

    CLIPTrainer = PromptTrainer | FeatureTrainer
