"""CoOp: learnable context words in front of the class name (arXiv 2109.01134)."""

from __future__ import annotations

from dassl.engine import TRAINER_REGISTRY
from torch import nn

from causalclip.clip.prompts import TextPrompts
from causalclip.engine.base import PromptTrainer


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """One context shared by all classes, or one per class (CSC), in the text encoder alone."""

    config_node = "COOP"
    defaults = {
        "N_CTX": 16,
        "CSC": False,
        "CTX_INIT": "",
        "PREC": "fp32",
        "CLASS_TOKEN_POSITION": "end",
        "PROJECTION": "",
    }

    @property
    def class_bound(self) -> bool:
        """A context of its own for each class cannot move to other classes."""
        return self.settings.CSC

    def build_prompts(self) -> nn.Module:
        settings = self.settings
        n_ctx, init = self.context_words(position=settings.CLASS_TOKEN_POSITION)
        return TextPrompts(
            n_ctx,
            self.clip.token_embedding.weight.shape[1],
            init=init,
            n_classes=len(self.classnames) if settings.CSC else None,
        )
