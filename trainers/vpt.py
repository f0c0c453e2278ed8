"""VPT: prompts in the image encoder only, with hand-crafted text (arXiv 2203.12119).

As in MaPLe's ablation, arXiv 2210.03117.
"""

from __future__ import annotations

from torch import Tensor, nn

from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.texts import readable
from causalclip.data.catalogue import given_template
from causalclip.engine.contexts import (
    DEPTH,
    TOKENS,
    Context,
    handcrafted_features,
    independent_prompts,
)
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import text
from causalclip.settings.search import DEPTHS, GRADIENT_SPACE
from causalclip.settings.table import COMMON, Setting


class VPT(PromptTrainer):
    """Visual tokens before the first PROMPT_DEPTH_VISION blocks; depth 1 is the shallow variant."""

    config_node = "VPT"
    backbones = "ViT"
    settings_table = {
        "N_CTX_VISION": Setting(2, TOKENS, "Number of learned image tokens."),
        "CTX_INIT": Setting("a photo of a", text(), "Words before the class name."),
        "PROMPT_DEPTH_VISION": Setting(
            1, DEPTH, "Image blocks with prompts; 1: shallow.", blocks="image"
        ),
        **COMMON,
    }
    search_space = {**GRADIENT_SPACE, "PROMPT_DEPTH_VISION": DEPTHS}

    def build_prompts(self) -> nn.Module:
        """Return prompts of the image tower only."""
        words = readable(self.settings.CTX_INIT)
        template = given_template(self.cfg) or f"{words} {{}}."  # as published, for all data sets
        # The text never changes, so it is encoded once for training and evaluation.
        self.handcrafted = handcrafted_features(self, [template])
        return independent_prompts(
            self.clip,
            Context(0),
            text_depth=0,
            n_vision=self.settings.N_CTX_VISION,
            vision_depth=self.settings.PROMPT_DEPTH_VISION,
        )

    def text_features(self, prompts: PromptSet) -> Tensor:
        """Return the features (K, E) of the hand-crafted text, whatever the prompts are."""
        return self.handcrafted
