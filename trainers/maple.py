"""MaPLe: deep prompts in both encoders, visual ones projected from text (arXiv 2210.03117)."""

from __future__ import annotations

from torch import nn

from causalclip.engine.contexts import DEPTH, TOKENS, Context, coupled_prompts
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import text
from causalclip.settings.search import DEPTHS, GRADIENT_SPACE
from causalclip.settings.table import COMMON, Setting


class MaPLe(PromptTrainer):
    """PROMPT_DEPTH 9 means prompts at the input and before eight more blocks of each encoder."""

    config_node = "MAPLE"
    backbones = "ViT"
    model_name = "MultiModalPromptLearner"
    settings_table = {
        "N_CTX": Setting(2, TOKENS, "Number of learned tokens in each tower."),
        "CTX_INIT": Setting("a photo of a", text(), "Words to start from; empty: at random."),
        "PROMPT_DEPTH": Setting(
            9, DEPTH, "Number of blocks with prompts, the input included.", blocks="both"
        ),
        **COMMON,
    }
    search_space = {**GRADIENT_SPACE, "PROMPT_DEPTH": DEPTHS}

    def context(self) -> Context:
        """Return N_CTX learned words that start from CTX_INIT."""
        return Context(self.settings.N_CTX, self.settings.CTX_INIT)

    def build_prompts(self) -> nn.Module:
        """Return text prompts, and their projections into the image tower."""
        return coupled_prompts(self.clip, self.context(), depth=self.settings.PROMPT_DEPTH)
