"""CoCoOp: a context that every image shifts through a small meta-net (arXiv 2203.05557)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.kinds import backbone_of
from causalclip.clip.prompt_set import PromptSet, encode_text_sets
from causalclip.clip.prompts import ConditionalPrompts
from causalclip.engine.prompt_trainer import TOKENS, Context, PromptTrainer
from causalclip.engine.settings import Text


class CoCoOp(PromptTrainer):
    """CoOp's words plus h(z), one shift per image; the texts of a batch run as one batch."""

    config_node = "COCOOP"
    image_tower_untouched = True
    defaults = {"N_CTX": 16, "CTX_INIT": "", "PREC": "fp32", "PROJECTION": ""}
    constraints = {"N_CTX": TOKENS, "CTX_INIT": Text()}

    def context(self) -> Context:
        """The words that are learned, from N_CTX or CTX_INIT."""
        return Context.of_words(self.settings)

    def build_prompts(self) -> nn.Module:
        """The context and the meta-net."""
        context = self.context()
        return ConditionalPrompts(
            context.n_ctx,
            self.text_width,
            backbone_of(self.clip).embed_dim,
            init=context.start(self.clip),
        )

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Class logits (B, K) of images (B, 3, H, W), whose texts are their own: no `text`."""
        return self.feature_logits(self.image_features(images, PromptSet()))

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """As `logits`, from image features (B, E)."""
        features = F.normalize(features.float(), dim=-1)
        text_features = encode_text_sets(self.clip, self.class_tokens, self.model(features))
        return self.classify(features, text_features)  # (B, E) against (B, K, E)

    def evaluation_text(self) -> None:
        """The texts depend on the image: nothing holds for a whole evaluation."""
