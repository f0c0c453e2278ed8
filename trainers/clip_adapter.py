"""CLIP-Adapter: a bottleneck on the image features, blended with them (arXiv 2110.04544)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causalclip.clip.interface import backbone_of
from causalclip.clip.prompt_set import PromptSet
from causalclip.engine.contexts import handcrafted_features
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import integer, number
from causalclip.settings.search import GRADIENT_SPACE, Choice
from causalclip.settings.table import COMMON, TEMPLATE, Setting


class CLIP_Adapter(PromptTrainer):  # noqa: N801 (the registered name)
    """z' = RATIO A(z) + (1 - RATIO) z against the hand-crafted text; no gradient through CLIP."""

    config_node = "CLIP_ADAPTER"
    image_tower_untouched = True
    model_name = "clip_adapter"
    settings_table = {
        # The widest features of a released model have 1,024 dimensions.
        "REDUCTION": Setting(4, integer(1, 1024), "Ratio of feature width to bottleneck width."),
        "RATIO": Setting(0.2, number(0, 1), "Share of the adapted features, alpha."),
        "TEMPLATE": TEMPLATE,
        **COMMON,
    }
    search_space = {**GRADIENT_SPACE, "RATIO": Choice((0.2, 0.4, 0.6, 0.8))}

    def build_prompts(self) -> nn.Module:
        """Return the bottleneck, from features (B, E) to features (B, E).

        Raises:
            ValueError: a REDUCTION that leaves no unit.
        """
        self.handcrafted = handcrafted_features(self, [self.template()])
        width = backbone_of(self.clip).embed_dim
        if (reduction := self.settings.REDUCTION) > width:
            raise ValueError(
                f"TRAINER.CLIP_ADAPTER.REDUCTION must be at most {width}, the width of the "
                f"features, got {reduction}"
            )
        return nn.Sequential(
            nn.Linear(width, width // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(width // reduction, width, bias=False),
            nn.ReLU(),
        )

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, K) of images (B, 3, H, W) against the hand-crafted text."""
        return self.feature_logits(self.image_features(images, PromptSet()))

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Return `logits` from image features (B, E)."""
        features = features.float()
        adapted = self.model(features).float()  # in half precision under PREC amp
        blended = torch.lerp(features, adapted, self.settings.RATIO)
        return self.backbone.classify(blended, self.handcrafted)

    def evaluation_text(self) -> None:
        """Return None: the hand-crafted text is encoded when the model is built."""
