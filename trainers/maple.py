"""MaPLe: deep prompts in both encoders, the visual ones projected from the text ones
(arXiv 2210.03117)."""

from __future__ import annotations

from dassl.engine import TRAINER_REGISTRY
from torch import nn

from causalclip.engine.base import PromptTrainer, coupled_prompts


@TRAINER_REGISTRY.register()
class MaPLe(PromptTrainer):
    """PROMPT_DEPTH 9 means prompts at the input and before eight more blocks of each encoder."""

    config_node = "MAPLE"
    model_name = "MultiModalPromptLearner"
    defaults = {
        "N_CTX": 2,
        "CTX_INIT": "a photo of a",
        "PREC": "fp32",
        "PROMPT_DEPTH": 9,
        "PROJECTION": "",
    }

    def build_prompts(self) -> nn.Module:
        settings = self.settings
        self.class_tokens = self.tokens(n_ctx=settings.N_CTX, prefix=settings.CTX_INIT)
        return coupled_prompts(self.clip, settings)
