"""IVLP: independent deep prompts in both encoders, MaPLe's ablation (arXiv 2210.03117)."""

from __future__ import annotations

from torch import nn

from causalclip.engine.contexts import MAYBE_DEPTH, MAYBE_TOKENS, Context, independent_prompts
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import text
from causalclip.settings.search import DEPTHS, GRADIENT_SPACE
from causalclip.settings.table import COMMON, Setting


def independent_prompt_settings(*, n_ctx: int) -> dict[str, Setting]:
    """Return the settings of independent prompts in both towers, `n_ctx` tokens each."""
    return {
        "N_CTX_VISION": Setting(n_ctx, MAYBE_TOKENS, "Number of learned image tokens."),
        "N_CTX_TEXT": Setting(n_ctx, MAYBE_TOKENS, "Number of learned text tokens."),
        "CTX_INIT": Setting("a photo of a", text(), "Words to start from; empty: at random."),
        "PROMPT_DEPTH_VISION": Setting(
            9, MAYBE_DEPTH, "Image blocks with prompts; 0: none.", blocks="image"
        ),
        "PROMPT_DEPTH_TEXT": Setting(
            9, MAYBE_DEPTH, "Text blocks with prompts; 0: none.", blocks="text"
        ),
    }


class IVLP(PromptTrainer):
    """Text and visual prompts that share nothing; PROMPT_DEPTH_VISION 0 prompts the text alone."""

    config_node = "IVLP"
    backbones = "ViT"
    model_name = "VLPromptLearner"
    settings_table = {
        **independent_prompt_settings(n_ctx=2),
        **COMMON,
    }
    search_space = {**GRADIENT_SPACE, "PROMPT_DEPTH_VISION PROMPT_DEPTH_TEXT": DEPTHS}

    def context(self) -> Context:
        """Return N_CTX_TEXT learned words that start from CTX_INIT."""
        return Context(self.settings.N_CTX_TEXT, self.settings.CTX_INIT)

    @property
    def image_tower_untouched(self) -> bool:
        """Whether the image tower is CLIP's own, which it is without visual prompts."""
        return self.settings.PROMPT_DEPTH_VISION == 0

    def build_prompts(self) -> nn.Module:
        """Return independent prompts of both towers."""
        settings = self.settings
        return independent_prompts(
            self.clip,
            self.context(),
            text_depth=settings.PROMPT_DEPTH_TEXT,
            n_vision=settings.N_CTX_VISION,
            vision_depth=settings.PROMPT_DEPTH_VISION,
        )
