"""KgCoOp: CoOp with a penalty on the distance from the hand-crafted text (arXiv 2303.13283)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.prompts import TextPrompts
from causalclip.engine.contexts import TOKENS, Context, handcrafted_features
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import number, text
from causalclip.settings.search import GRADIENT_SPACE, LogUniform
from causalclip.settings.table import COMMON, TEMPLATE, Setting


class KgCoOp(PromptTrainer):
    """L = L_ce + W mean_k (1 - cos(w_k, w_k^clip)); published keys: COOP.CTX_INIT and COOP.W."""

    config_node = "KGCOOP"
    image_tower_untouched = True
    code_templates = {"DescribableTextures": "a photo of a {}, a type of texture."}
    settings_table = {
        "N_CTX": Setting(4, TOKENS, "Number of learned context words, if CTX_INIT is empty."),
        "CTX_INIT": Setting("a photo of a", text(), "Words to start from; empty: at random."),
        "W": Setting(8.0, number(0), "Weight of the distance from CLIP's texts, lambda."),
        "TEMPLATE": TEMPLATE,
        **COMMON,
    }
    search_space = {**GRADIENT_SPACE, "W": LogUniform(1.0, 20.0)}

    def context(self) -> Context:
        """Return the learned words: those of CTX_INIT, or N_CTX random ones."""
        return Context.of_words(self.settings)

    def build_prompts(self) -> nn.Module:
        """Return one context for all classes."""
        context, width = self.context(), self.backbone.text_width
        self.handcrafted = handcrafted_features(self, [self.template()])
        return TextPrompts(context.n_ctx, width, init=context.start(self.clip))

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return cross-entropy plus W times the texts' mean distance from CLIP's, and logits."""
        prompts = self.model()
        text_features = self.text_features(prompts)
        image_features = self.image_features(images, prompts)
        logits = self.backbone.classify(image_features, text_features)
        similarity = F.cosine_similarity(text_features.float(), self.handcrafted.float(), dim=-1)
        return F.cross_entropy(logits, labels) + self.settings.W * (1 - similarity.mean()), logits
