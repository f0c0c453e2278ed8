"""MMA: adapters beside the upper blocks of both towers, coupled in their middle (CVPR 2024).

Yang et al., Multi-Modal Adapter for Vision-Language Models; its code calls the trainer
MultiModalAdapter, and its node MMADAPTER.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from causalclip.clip.adapters import CoupledAdapters
from causalclip.clip.kinds import backbone_of
from causalclip.clip.templates import spoken
from causalclip.clip.texts import ClassTokens, template_tokens
from causalclip.data.templates import given_template
from causalclip.engine.prompt_trainer import DEPTH, PromptTrainer, tower_widths
from causalclip.engine.settings import Number, Text, Whole


class MMA(PromptTrainer):
    """Hand-crafted text and cross-entropy; what learns is beside blocks ADAPTER_START to _END."""

    config_node = "MMA"
    model_name = "adapter_learner"
    defaults = {
        "TEXT_CTX_INIT": "a photo of a",
        "ADAPTER_START": 5,  # the first layer of both towers, counted from 1
        "ADAPTER_END": 12,
        "ADAPTER_DIM": 32,
        "ADAPTER_SCALE": 0.001,  # alpha of the paper
        "PREC": "fp32",
        "PROJECTION": "",
    }
    constraints = {
        "TEXT_CTX_INIT": Text(),
        "ADAPTER_START": DEPTH,
        "ADAPTER_END": DEPTH,
        "ADAPTER_DIM": Whole(1, 10_000),
        "ADAPTER_SCALE": Number(0, open_low=True),
    }

    def build_prompts(self) -> nn.Module:
        """The adapters of both towers.

        Raises:
            ValueError: layers that a tower does not have, or none; a ResNet.
        """
        settings = self.settings
        start, end = settings.ADAPTER_START, settings.ADAPTER_END
        if start > end:
            raise ValueError(f"TRAINER.MMA.ADAPTER_END must be at least {start}, got {end}")
        text_width, image_width = tower_widths(self.clip, text=end, vision=end)
        return CoupledAdapters(
            start,
            end,
            settings.ADAPTER_DIM,
            text_width,
            image_width,
            scale=settings.ADAPTER_SCALE,
        )

    def texts(self, names: Sequence[str]) -> ClassTokens:
        """The same template for all data sets as published, with K class names, (K, L)."""
        template = given_template(self.cfg) or f"{spoken(self.settings.TEXT_CTX_INIT)} {{}}."
        backbone = backbone_of(self.clip)
        length, tokenizer = backbone.context_length, backbone.tokenizer
        texts = template_tokens(names, template, context_length=length, tokenizer=tokenizer)
        return texts.to(self.device)
