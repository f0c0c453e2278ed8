"""The engine: two kinds of trainers, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causalclip.engine.feature_trainer import FeatureTrainer
    from causalclip.engine.prompt_trainer import PromptTrainer

    CLIPTrainer = PromptTrainer | FeatureTrainer
