"""VPT: prompts in the image encoder alone, hand-crafted text (arXiv 2203.12119; as in MaPLe's
ablation, arXiv 2210.03117)."""

from __future__ import annotations

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn

from causalclip.clip.prompts import PromptSet
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import given_template
from causalclip.engine.base import PromptTrainer, independent_prompts


@TRAINER_REGISTRY.register()
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

    def build_prompts(self) -> nn.Module:
        words = self.settings.CTX_INIT.replace("_", " ")
        template = given_template(self.cfg) or f"{words} {{}}."  # as published, for all data sets
        # The text never changes: encoded once for training and evaluation.
        self.handcrafted = class_features(self.clip, self.classnames, [template])
        return independent_prompts(self.clip, self.settings)

    def text_features(self, prompts: PromptSet) -> Tensor:
        return self.handcrafted
