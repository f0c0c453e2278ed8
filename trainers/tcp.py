"""TCP: KgCoOp whose text tower is told which class it reads (CVPR 2024, arXiv 2311.18231)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from causalclip.clip.prompt_set import encode_classes
from causalclip.clip.prompts import ClassAwarePrompts
from causalclip.clip.zeroshot import class_features
from causalclip.engine.prompt_trainer import TOKENS, Context, tower_widths
from causalclip.engine.settings import Number, Text, Whole
from causalclip.trainers.kgcoop import KgCoOp

# Where the published code differs from CoOp's templates: what CLIP knows of the classes.
TEMPLATES = {
    "DescribableTextures": "a photo of a {}, a type of texture.",
    "FGVCAircraft": "a photo of an aircraft {}.",
}
# ... and what it puts behind the learned words; "{}." for every other data set.
BEHIND = {
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

    At block PROMPT_DEPTH tokens that a small net makes of w_k^clip take the place of the learned
    words. The published code writes as constants: W = 8; that the tokens replace the words wholly
    (its COOP.W, which would blend them, is overwritten by 1: its issue 8); block 9 of 12, counted
    from 1; the text tower's width 512, here the model's; four tokens, here N_CTX.
    """

    config_node = "TCP"
    defaults = {
        "N_CTX": 4,
        "CTX_INIT": "",  # starts at random as published; words decide how many tokens
        "PROMPT_DEPTH": 9,  # the one block that the class-aware tokens enter, from 1
        "W": 8.0,
        "TEMPLATE": "",  # of w_k^clip; empty takes the data set's published template
        "ADAM_EPS": 1e-3,  # as the published README has it put into Dassl, against NaN in fp16
        "PREC": "fp32",
        "PROJECTION": "",
    }
    constraints = {
        "N_CTX": TOKENS,
        "CTX_INIT": Text(),
        "PROMPT_DEPTH": Whole(2, 100),
        "W": Number(0),
        "TEMPLATE": Text("{}"),
        "ADAM_EPS": Number(0, open_low=True),
    }
    templates = TEMPLATES

    def build_method(self) -> None:
        """As every prompt trainer; OPTIM has no key for the epsilon of Adam."""
        super().build_method()
        for group in self.optim.param_groups:
            if "eps" in group:
                group["eps"] = self.settings.ADAM_EPS

    def context(self) -> Context:
        """The words that are learned, and what the data set's text has behind them."""
        start = Context.of_words(self.settings)
        behind = BEHIND.get(self.cfg.DATASET.NAME, start.template)
        return Context(start.n_ctx, start.words, template=behind)

    def build_prompts(self) -> nn.Module:
        """The context, and the net that makes tokens of what CLIP knows of each class.

        Raises:
            ValueError: a block that the text tower does not have.
        """
        context, depth = self.context(), self.settings.PROMPT_DEPTH
        width, _ = tower_widths(self.clip, text=depth, vision=0)
        self.handcrafted = self.known(self.classnames)
        start = context.start(self.clip)
        return ClassAwarePrompts(context.n_ctx, depth, width, self.handcrafted, init=start)

    def known(self, names: Sequence[str]) -> Tensor:
        """w_k^clip: frozen CLIP's unit text features (K, E) of K class names."""
        return class_features(self.clip, names, [self.template()])

    def learned_text(self, names: Sequence[str]) -> Tensor:
        """Text features (K, E) of any class names, with tokens of their own."""
        texts = self.texts(names)
        assert texts is not None, "there is a context"
        return encode_classes(self.clip, texts, self.model(self.known(names)))
