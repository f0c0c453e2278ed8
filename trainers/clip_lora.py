"""CLIP_LoRA: low-rank changes of the attention in both towers (arXiv 2405.18541)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from causalclip.clip.low_rank import LowRankWeights
from causalclip.clip.texts import ClassTokens
from causalclip.engine.contexts import templated_texts
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import integer, list_of, number, one_of
from causalclip.settings.dataclass_settings import config_from, settings_of
from causalclip.settings.table import COMMON, GRADIENT_SPACE, TEMPLATE, Choice


@dataclass(frozen=True)
class LoRAConfig:
    """Settings of CLIP-LoRA."""

    rank: int = 2
    """Rank of each change, r."""
    alpha: float = 1.0
    """The changes are scaled by alpha / sqrt(r)."""
    dropout: float = 0.25
    """Share of the input features that the changes of a training step do not see."""
    encoder: Literal["both", "text", "vision"] = "both"
    """Towers to change."""
    params: tuple[str, ...] = ("q", "k", "v")
    """Weights of the attention to change."""


class CLIP_LoRA(PromptTrainer):  # noqa: N801 (the registered name)
    """Cross-entropy; W + alpha / sqrt(r) B A for query, key and value weights of all blocks."""

    config_node = "CLIP_LORA"
    backbones = "ViT"
    model_name = "lora"
    settings_table = {
        **settings_of(
            LoRAConfig,
            {
                "RANK": integer(1, 10_000),
                "ALPHA": number(0, open_low=True),
                "DROPOUT": number(0, 1, open_high=True),
                "PARAMS": list_of(one_of(("q", "k", "v"))),
            },
        ),
        "TEMPLATE": TEMPLATE,
        **COMMON,
    }
    search_space = {**GRADIENT_SPACE, "RANK": Choice((2, 4, 8))}

    def build_prompts(self) -> nn.Module:
        """Return the low-rank weights.

        Raises:
            ValueError: a backbone without attention weights to change.
        """
        config = config_from(LoRAConfig, self.settings, where="TRAINER.CLIP_LORA")
        both = {"text": ("text",), "vision": ("image",)}
        return LowRankWeights(
            self.clip,
            towers=both.get(config.encoder, ("text", "image")),
            parts=sorted(set(config.params), key="qkv".index),
            rank=config.rank,
            scale=config.alpha / math.sqrt(config.rank),
            dropout=config.dropout,
        )

    def texts(self, names: Sequence[str]) -> ClassTokens:
        """Return the template of the data set with K class names, (K, L)."""
        return templated_texts(self, names)
