"""CoCoOp: a context that every image shifts through a small meta-net (arXiv 2203.05557)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.encode_sets import encode_text_sets
from causalclip.clip.interface import backbone_of
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.prompts import ConditionalPrompts
from causalclip.engine.contexts import TOKENS, Context
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import text
from causalclip.settings.table import COMMON, Setting


class CoCoOp(PromptTrainer):
    """CoOp's words plus h(z), one shift per image; all texts of a batch are encoded together."""

    config_node = "COCOOP"
    image_tower_untouched = True
    settings_table = {
        "N_CTX": Setting(16, TOKENS, "Number of learned context words, if CTX_INIT is empty."),
        "CTX_INIT": Setting("", text(), "Words to start from; empty: at random."),
        **COMMON,
    }

    def context(self) -> Context:
        """Return the learned words: those of CTX_INIT, or N_CTX random ones."""
        return Context.of_words(self.settings)

    def build_prompts(self) -> nn.Module:
        """Return the context and the meta-net."""
        context = self.context()
        return ConditionalPrompts(
            context.n_ctx,
            self.backbone.text_width,
            backbone_of(self.clip).embed_dim,
            init=context.start(self.clip),
        )

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, K) of images (B, 3, H, W), each with its own texts."""
        return self.feature_logits(self.image_features(images, PromptSet()))

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Return `logits` from image features (B, E)."""
        features = F.normalize(features.float(), dim=-1)
        text_features = encode_text_sets(self.clip, self.class_tokens, self.model(features))
        return self.backbone.classify(features, text_features)  # (B, E) against (B, K, E)

    def evaluation_text(self) -> None:
        """Return None: the texts depend on the image."""
