"""CLIP_LoRA: low-rank changes of the attention in both towers (arXiv 2405.18541)."""

from __future__ import annotations

import math

from torch import nn

from causalclip.clip.low_rank import LowRankWeights
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import integer, list_of, number, one_of
from causalclip.settings.search import GRADIENT_SPACE, Choice
from causalclip.settings.table import COMMON, TEMPLATE, Setting


class CLIP_LoRA(PromptTrainer):  # noqa: N801 (the registered name)
    """Learn W + alpha / sqrt(r) B A for the query, key and value weights W of all blocks."""

    config_node = "CLIP_LORA"
    backbones = "ViT"
    model_name = "lora"
    templated = True
    settings_table = {
        "RANK": Setting(2, integer(1, 10_000), "Rank of each change, r."),
        "ALPHA": Setting(
            1.0, number(0, open_low=True), "The changes are scaled by alpha / sqrt(r)."
        ),
        "DROPOUT": Setting(
            0.25,
            number(0, 1, open_high=True),
            "Dropout of the input features of the changes, in training.",
        ),
        "ENCODER": Setting("both", one_of(("both", "text", "vision")), "Towers to change."),
        "PARAMS": Setting(
            ["q", "k", "v"], list_of(one_of(("q", "k", "v"))), "Weights of the attention to change."
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
        settings = self.settings
        both = {"text": ("text",), "vision": ("image",)}
        return LowRankWeights(
            self.clip,
            towers=both.get(settings.ENCODER, ("text", "image")),
            parts=sorted(set(settings.PARAMS), key="qkv".index),
            rank=settings.RANK,
            scale=settings.ALPHA / math.sqrt(settings.RANK),
            dropout=settings.DROPOUT,
        )
