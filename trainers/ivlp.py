"""IVLP: independent deep prompts in both encoders, MaPLe's ablation (arXiv 2210.03117)."""

from __future__ import annotations

from dassl.engine import TRAINER_REGISTRY
from torch import nn

from causalclip.engine.base import PromptTrainer, independent_prompts


@TRAINER_REGISTRY.register()
class IVLP(PromptTrainer):
    """Text and visual prompts that share nothing; PROMPT_DEPTH_VISION 0 prompts the text alone."""

    config_node = "IVLP"
    model_name = "VLPromptLearner"
    defaults = {
        "N_CTX_VISION": 2,
        "N_CTX_TEXT": 2,
        "CTX_INIT": "a photo of a",
        "PREC": "fp32",
        "PROMPT_DEPTH_VISION": 9,
        "PROMPT_DEPTH_TEXT": 9,
        "PROJECTION": "",
    }

    def build_prompts(self) -> nn.Module:
        settings = self.settings
        self.class_tokens = self.tokens(n_ctx=settings.N_CTX_TEXT, prefix=settings.CTX_INIT)
        return independent_prompts(self.clip, settings)
