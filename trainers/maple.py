"""MaPLe: deep prompts in both encoders, visual ones projected from text (arXiv 2210.03117)."""

from __future__ import annotations

from torch import nn

from causalclip.engine.prompt_trainer import DEPTH, TOKENS, Context, PromptTrainer, coupled_prompts
from causalclip.engine.settings import Text


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
    constraints = {"N_CTX": TOKENS, "CTX_INIT": Text(), "PROMPT_DEPTH": DEPTH}

    def context(self) -> Context:
        """The words that are learned, from N_CTX or CTX_INIT."""
        return Context(self.settings.N_CTX, self.settings.CTX_INIT)

    def build_prompts(self) -> nn.Module:
        """Text prompts, and their projections into the image tower."""
        return coupled_prompts(self.clip, self.context(), depth=self.settings.PROMPT_DEPTH)
