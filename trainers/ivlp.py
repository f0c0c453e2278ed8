"""IVLP: independent deep prompts in both encoders, MaPLe's ablation (arXiv 2210.03117)."""

from __future__ import annotations

from torch import nn

from causalclip.engine.prompt_trainer import (
    MAYBE_DEPTH,
    MAYBE_TOKENS,
    Context,
    PromptTrainer,
    independent_prompts,
)
from causalclip.engine.settings import Text


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
    constraints = {
        "N_CTX_VISION": MAYBE_TOKENS,
        "N_CTX_TEXT": MAYBE_TOKENS,
        "CTX_INIT": Text(),
        "PROMPT_DEPTH_VISION": MAYBE_DEPTH,
        "PROMPT_DEPTH_TEXT": MAYBE_DEPTH,
    }

    def context(self) -> Context:
        """The words that are learned, from N_CTX or CTX_INIT."""
        return Context(self.settings.N_CTX_TEXT, self.settings.CTX_INIT)

    @property
    def image_tower_untouched(self) -> bool:
        """Without visual prompts the image tower is CLIP's own."""
        return self.settings.PROMPT_DEPTH_VISION == 0

    def build_prompts(self) -> nn.Module:
        """Independent prompts of both towers."""
        settings = self.settings
        return independent_prompts(
            self.clip,
            self.context(),
            text_depth=settings.PROMPT_DEPTH_TEXT,
            n_vision=settings.N_CTX_VISION,
            vision_depth=settings.PROMPT_DEPTH_VISION,
        )
