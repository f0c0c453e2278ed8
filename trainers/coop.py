"""CoOp: learnable context words in front of the class name (arXiv 2109.01134)."""

from __future__ import annotations

from typing import get_args

from torch import nn

from causalclip.clip.prompts import TextPrompts
from causalclip.clip.texts import Position
from causalclip.engine.prompt_trainer import TOKENS, Context, PromptTrainer
from causalclip.engine.settings import Flag, OneOf, Text


class CoOp(PromptTrainer):
    """One context shared by all classes, or one per class (CSC), in the text encoder alone."""

    config_node = "COOP"
    image_tower_untouched = True
    defaults = {
        "N_CTX": 16,
        "CSC": False,
        "CTX_INIT": "",
        "PREC": "fp32",
        "CLASS_TOKEN_POSITION": "end",
        "PROJECTION": "",
    }
    constraints = {
        "N_CTX": TOKENS,
        "CSC": Flag(),
        "CTX_INIT": Text(),
        "CLASS_TOKEN_POSITION": OneOf(get_args(Position)),
    }

    @property
    def class_bound(self) -> bool:
        """A context of its own for each class cannot move to other classes."""
        return self.settings.CSC

    def context(self) -> Context:
        """The words that are learned, from N_CTX or CTX_INIT."""
        return Context.of_words(self.settings, position=self.settings.CLASS_TOKEN_POSITION)

    def build_prompts(self) -> nn.Module:
        """One context, or with CSC one a class."""
        context = self.context()
        return TextPrompts(
            context.n_ctx,
            self.text_width,
            init=context.start(self.clip),
            n_classes=len(self.classnames) if self.settings.CSC else None,
        )
