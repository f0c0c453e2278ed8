"""TCP: KgCoOp with class-aware prompts in the text tower (CVPR 2024, arXiv 2311.18231)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from causalclip.clip.encode import encode_classes
from causalclip.clip.prompts import ClassAwarePrompts
from causalclip.engine.contexts import TOKENS, Context, handcrafted_features, tower_widths
from causalclip.settings.constraints import integer, number, text
from causalclip.settings.table import COMMON, TEMPLATE, Setting
from causalclip.trainers.kgcoop import KgCoOp

# Text after the learned words in the published code; "{}." for every other data set.
AFTER_CONTEXT = {
    "OxfordPets": "{}, a type of pet.",
    "OxfordFlowers": "{}, a type of flower.",
    "FGVCAircraft": "{}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "StanfordCars": "{}, a type of car",
    "Food101": "{}, a type of food.",
    "UCF101": "person doing {}.",
}


class TCP(KgCoOp):
    """L = L_ce + W mean_k (1 - cos(w_k, w_k^clip)), as KgCoOp's, of class-aware texts w_k.

    At block PROMPT_DEPTH, tokens that a small network computes from w_k^clip replace the learned
    words. The published code has constants for this: W = 8; block 9 of 12, counted from 1; the text
    tower's width 512, here the model's; four tokens, here N_CTX. Its COOP.W would blend words and
    tokens, but is overwritten by 1 (its issue 8), so that the tokens replace the words wholly.
    """

    config_node = "TCP"
    code_templates = {
        "DescribableTextures": "a photo of a {}, a type of texture.",
        "FGVCAircraft": "a photo of an aircraft {}.",
    }
    settings_table = {
        "N_CTX": Setting(4, TOKENS, "Number of learned context words, if CTX_INIT is empty."),
        "CTX_INIT": Setting("", text(), "Words to start from; empty: at random, as published."),
        "PROMPT_DEPTH": Setting(
            9, integer(2, 100), "Block that the class-aware tokens enter.", blocks="text"
        ),
        "W": Setting(8.0, number(0), "Weight of the distance from CLIP's texts."),
        "TEMPLATE": TEMPLATE,
        "ADAM_EPS": Setting(
            1e-3, number(0, open_low=True), "Epsilon of Adam, as published, against NaN in fp16."
        ),
        **COMMON,
    }

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Return the optimizer, with ADAM_EPS for Adam: OPTIM has no key for epsilon."""
        optimizer = super().optimizer(model)
        for group in optimizer.param_groups:
            if "eps" in group:
                group["eps"] = self.settings.ADAM_EPS
        return optimizer

    def context(self) -> Context:
        """Return the learned words, and the text of the data set after them."""
        start = Context.of_words(self.settings)
        suffix = AFTER_CONTEXT.get(self.cfg.DATASET.NAME, start.template)
        return Context(start.n_ctx, start.words, template=suffix)

    def build_prompts(self) -> nn.Module:
        """Return the context and the network from CLIP's texts to class-aware tokens.

        Raises:
            ValueError: a block that the text tower does not have.
        """
        context, depth = self.context(), self.settings.PROMPT_DEPTH
        width, _ = tower_widths(self.clip, text=depth, vision=0)
        self.handcrafted = self.clip_texts(self.classnames)
        start = context.start(self.clip)
        return ClassAwarePrompts(context.n_ctx, depth, width, self.handcrafted, init=start)

    def clip_texts(self, names: Sequence[str]) -> Tensor:
        """Return w_k^clip, frozen CLIP's unit text features (K, E) of K class names."""
        return handcrafted_features(self, [self.template()], names)

    def learned_text(self, names: Sequence[str]) -> Tensor:
        """Return text features (K, E) of any class names, with their own tokens."""
        texts = self.texts(names)
        assert texts is not None, "there is a context"
        return encode_classes(self.clip, texts, self.model(self.clip_texts(names)))
