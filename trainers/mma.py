"""MMA: adapters parallel to the upper blocks of both towers, coupled in their middle (CVPR 2024).

Yang et al., Multi-Modal Adapter for Vision-Language Models; its code calls the trainer
MultiModalAdapter, and its node MMADAPTER.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from causalclip.clip.adapters import CoupledAdapters
from causalclip.clip.texts import ClassTokens, readable
from causalclip.data.catalogue import given_template
from causalclip.engine.contexts import DEPTH, tokens_of, tower_widths
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import integer, number, text
from causalclip.settings.search import GRADIENT_SPACE, LogUniform, Shares
from causalclip.settings.table import COMMON, Setting


class MMA(PromptTrainer):
    """Hand-crafted text and cross-entropy; blocks ADAPTER_START to ADAPTER_END have adapters."""

    config_node = "MMA"
    backbones = "ViT"
    model_name = "adapter_learner"
    settings_table = {
        "TEXT_CTX_INIT": Setting("a photo of a", text(), "Words before the class name."),
        "ADAPTER_START": Setting(
            5, DEPTH, "First layer with an adapter, counted from 1.", blocks="both"
        ),
        "ADAPTER_END": Setting(12, DEPTH, "Last layer with an adapter.", blocks="both"),
        "ADAPTER_DIM": Setting(32, integer(1, 10_000), "Width of the adapters."),
        "ADAPTER_SCALE": Setting(0.001, number(0, open_low=True), "Scale alpha of the adapters."),
        **COMMON,
    }
    search_space = {
        **GRADIENT_SPACE,
        "ADAPTER_START": Shares((0.5, 0.75, 1.0)),
        "ADAPTER_SCALE": LogUniform(0.0003, 0.01),
    }

    def build_prompts(self) -> nn.Module:
        """Return the adapters of both towers.

        Raises:
            ValueError: layers that a tower does not have, or none; a ResNet.
        """
        settings = self.settings
        start, end = settings.ADAPTER_START, settings.ADAPTER_END
        if start > end:
            key = f"TRAINER.{self.config_node}.ADAPTER_END"
            raise ValueError(f"{key} must be at least {start}, got {end}")
        widths = tower_widths(self.clip, text=end, vision=end)
        return self.adapters(start, end, settings.ADAPTER_DIM, *widths)

    def adapters(self, *sizes: int) -> CoupledAdapters:
        """Return adapters; `sizes` are first and last layer, and widths of adapters and towers."""
        return CoupledAdapters(*sizes, scale=self.settings.ADAPTER_SCALE)

    def texts(self, names: Sequence[str]) -> ClassTokens:
        """Return tokens (K, L) of K class names in one template for all data sets, as published."""
        template = given_template(self.cfg) or f"{readable(self.settings.TEXT_CTX_INIT)} {{}}."
        return tokens_of(self, names, template).to(self.device)
