"""KgCoOp: CoOp held near the hand-crafted text by a distance penalty (arXiv 2303.13283)."""

from __future__ import annotations

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.prompts import TextPrompts
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.base import PromptTrainer

# The published code follows CoOp's templates but for textures.
TEMPLATES = {"DescribableTextures": "a photo of a {}, a type of texture."}


@TRAINER_REGISTRY.register()
class KgCoOp(PromptTrainer):
    """L = L_ce + W mean_k (1 - cos(w_k, w_k^clip)); the published keys are COOP.CTX_INIT and .W."""

    config_node = "KGCOOP"
    defaults = {
        "N_CTX": 4,
        "CTX_INIT": "a photo of a",
        "W": 8.0,  # lambda of the paper
        "TEMPLATE": "",  # of w_k^clip; empty takes the data set's published template
        "PREC": "fp32",
        "PROJECTION": "",
    }

    def build_prompts(self) -> nn.Module:
        n_ctx, init = self.context_words()
        self.handcrafted = class_features(self.clip, self.classnames, [self.template()])
        return TextPrompts(n_ctx, self.clip.token_embedding.weight.shape[1], init=init)

    def template(self) -> str:
        """The hand-crafted template that the learned text is held near."""
        return self.settings.TEMPLATE or dataset_template(self.cfg, TEMPLATES)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        prompts = self.model()
        text_features = self.text_features(prompts)
        logits = self.classify(self.image_features(images, prompts), text_features)
        similarity = F.cosine_similarity(text_features.float(), self.handcrafted.float(), dim=-1)
        return F.cross_entropy(logits, labels) + self.settings.W * (1 - similarity.mean()), logits
