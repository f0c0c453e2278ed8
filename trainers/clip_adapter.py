"""CLIP-Adapter: a bottleneck on the image features, blended with them (arXiv 2110.04544)."""

from __future__ import annotations

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn

from causalclip.clip.prompts import PromptSet
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.base import PromptTrainer


@TRAINER_REGISTRY.register()
class CLIP_Adapter(PromptTrainer):
    """z' = RATIO A(z) + (1 - RATIO) z against the hand-crafted text; no graph through CLIP."""

    config_node = "CLIP_ADAPTER"
    model_name = "clip_adapter"
    defaults = {
        "REDUCTION": 4,
        "RATIO": 0.2,  # alpha of the paper
        "TEMPLATE": "",  # empty takes the data set's published template
        "PREC": "fp32",
        "PROJECTION": "",
    }

    def build_prompts(self) -> nn.Module:
        template = self.settings.TEMPLATE or dataset_template(self.cfg)
        self.handcrafted = class_features(self.clip, self.classnames, [template])
        width = self.clip.text_projection.shape[1]
        return nn.Sequential(
            nn.Linear(width, width // self.settings.REDUCTION, bias=False),
            nn.ReLU(),
            nn.Linear(width // self.settings.REDUCTION, width, bias=False),
            nn.ReLU(),
        )

    def logits(self, images: Tensor) -> Tensor:
        features = self.image_features(images, PromptSet()).float()
        blended = torch.lerp(features, self.model(features), self.settings.RATIO)
        return self.classify(blended, self.handcrafted)

    def evaluation_text(self) -> None:
        """The text is the hand-crafted one, kept since the model was built."""
