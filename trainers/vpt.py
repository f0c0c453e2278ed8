"""VPT: prompts in the image encoder alone, hand-crafted text (arXiv 2203.12119).

As in MaPLe's ablation, arXiv 2210.03117.
"""

from __future__ import annotations

from torch import Tensor, nn

from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.templates import spoken
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import given_template
from causalclip.engine.prompt_trainer import (
    DEPTH,
    TOKENS,
    Context,
    PromptTrainer,
    independent_prompts,
)
from causalclip.engine.settings import Text


class VPT(PromptTrainer):
    """Visual tokens before the first PROMPT_DEPTH_VISION blocks; depth 1 is the shallow variant."""

    config_node = "VPT"
    defaults = {
        "N_CTX_VISION": 2,
        "CTX_INIT": "a photo of a",
        "PREC": "fp32",
        "PROMPT_DEPTH_VISION": 1,
        "PROJECTION": "",
    }
    constraints = {"N_CTX_VISION": TOKENS, "CTX_INIT": Text(), "PROMPT_DEPTH_VISION": DEPTH}

    def build_prompts(self) -> nn.Module:
        """Image prompts alone."""
        words = spoken(self.settings.CTX_INIT)
        template = given_template(self.cfg) or f"{words} {{}}."  # as published, for all data sets
        # The text never changes: encoded once for training and evaluation.
        self.handcrafted = class_features(self.clip, self.classnames, [template])
        return independent_prompts(
            self.clip,
            Context(0),
            text_depth=0,
            n_vision=self.settings.N_CTX_VISION,
            vision_depth=self.settings.PROMPT_DEPTH_VISION,
        )

    def text_features(self, prompts: PromptSet) -> Tensor:
        """(K, E) of the hand-crafted text, whatever the prompts."""
        return self.handcrafted
