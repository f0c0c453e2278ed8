"""CoOp: learnable context words in front of the class name (arXiv 2109.01134)."""

from __future__ import annotations

from typing import get_args

from torch import nn
from yacs.config import CfgNode

from causalclip.clip.prompts import TextPrompts
from causalclip.clip.texts import Position
from causalclip.engine.contexts import TOKENS, Context
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import boolean, one_of, text
from causalclip.settings.table import COMMON, Setting


class CoOp(PromptTrainer):
    """One context shared by all classes, or one per class (CSC), in the text encoder alone."""

    config_node = "COOP"
    image_tower_untouched = True
    settings_table = {
        "N_CTX": Setting(16, TOKENS, "Number of learned context words, if CTX_INIT is empty."),
        "CSC": Setting(False, boolean(), "Learn a separate context for each class."),
        "CTX_INIT": Setting("", text(), "Words to start from; empty: at random."),
        "CLASS_TOKEN_POSITION": Setting(
            "end", one_of(get_args(Position)), "Place of the class name in the context."
        ),
        **COMMON,
    }

    @classmethod
    def knows_other_classes(cls, settings: CfgNode) -> bool:
        """Return False for class-specific contexts, which cannot move to other classes."""
        return not settings.CSC

    def context(self) -> Context:
        """Return the learned words: those of CTX_INIT, or N_CTX random ones."""
        return Context.of_words(self.settings, position=self.settings.CLASS_TOKEN_POSITION)

    def build_prompts(self) -> nn.Module:
        """Return one context, or with CSC one context per class."""
        context = self.context()
        return TextPrompts(
            context.n_ctx,
            self.backbone.text_width,
            init=context.start(self.clip),
            n_classes=len(self.classnames) if self.settings.CSC else None,
        )
