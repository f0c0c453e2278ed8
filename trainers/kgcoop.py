"""KgCoOp: CoOp held near the hand-crafted text by a distance penalty (arXiv 2303.13283)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.prompts import TextPrompts
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.prompt_trainer import TOKENS, Context, PromptTrainer
from causalclip.engine.settings import Number, Text

# The published code follows CoOp's templates but for textures.
TEMPLATES = {"DescribableTextures": "a photo of a {}, a type of texture."}


class KgCoOp(PromptTrainer):
    """L = L_ce + W mean_k (1 - cos(w_k, w_k^clip)); the published keys are COOP.CTX_INIT and .W."""

    config_node = "KGCOOP"
    image_tower_untouched = True
    defaults = {
        "N_CTX": 4,
        "CTX_INIT": "a photo of a",
        "W": 8.0,  # lambda of the paper
        "TEMPLATE": "",  # of w_k^clip; empty takes the data set's published template
        "PREC": "fp32",
        "PROJECTION": "",
    }
    constraints = {"N_CTX": TOKENS, "CTX_INIT": Text(), "W": Number(0)}
    templates = TEMPLATES

    def context(self) -> Context:
        """The words that are learned, from N_CTX or CTX_INIT."""
        return Context.of_words(self.settings)

    def build_prompts(self) -> nn.Module:
        """One context for all classes."""
        context, width = self.context(), self.text_width
        self.handcrafted = class_features(self.clip, self.classnames, [self.template()])
        return TextPrompts(context.n_ctx, width, init=context.start(self.clip))

    def template(self) -> str:
        """The hand-crafted template that the learned text is held near."""
        return self.settings.TEMPLATE or dataset_template(self.cfg, self.templates)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy plus W times the mean distance of the class texts from the hand-crafted."""
        prompts = self.model()
        text_features = self.text_features(prompts)
        logits = self.classify(self.image_features(images, prompts), text_features)
        similarity = F.cosine_similarity(text_features.float(), self.handcrafted.float(), dim=-1)
        return F.cross_entropy(logits, labels) + self.settings.W * (1 - similarity.mean()), logits
