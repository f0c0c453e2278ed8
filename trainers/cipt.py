"""CIPT: causal image features, classified under texts of many styles (TPAMI 2025)."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.interface import backbone_of
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.prompts import TextPrompts, embed_words
from causalclip.clip.texts import readable
from causalclip.clip.zeroshot import IMAGENET_TEMPLATES, mean_text_features
from causalclip.engine.contexts import TOKENS, Context
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.settings.constraints import integer, number, text
from causalclip.settings.search import Choice, LogUniform
from causalclip.settings.table import COMMON, Setting


class CausalAdapters(TextPrompts):
    """A context, the adapters of causal and spurious features, and the attention to a text.

    z = LayerNorm(e + A(e, p)) of a causal feature e and a text p. The paper's attention has one
    key, the text, whose weight is always 1. So A is the text's value, W_o (W_v p + b_v) + b_o.
    Queries, keys and the number of heads have no effect, and are left out here.
    """

    def __init__(self, n_ctx: int, width: int, embed_dim: int) -> None:
        """Start the context at random, the adapters as the identity, the rest as torch does."""
        super().__init__(n_ctx, width)
        self.causal, self.spurious = identity(embed_dim), identity(embed_dim)
        self.value, self.out = nn.Linear(embed_dim, embed_dim), nn.Linear(embed_dim, embed_dim)
        # As nn.MultiheadAttention, which draws W_q, W_k and W_v as one matrix of 3 E rows.
        bound = math.sqrt(6 / (4 * embed_dim))
        nn.init.uniform_(self.value.weight, -bound, bound)
        nn.init.zeros_(self.value.bias)
        nn.init.zeros_(self.out.bias)
        self.norm = nn.LayerNorm(embed_dim)

    def intervene(self, causal: Tensor, texts: Tensor) -> Tensor:
        """Return z (..., E) of causal features and unit texts (..., E); their shapes broadcast."""
        return self.norm((causal + self.out(self.value(texts))).float())


def identity(width: int) -> nn.Linear:
    """Return a linear layer that starts as the identity."""
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class CIPT(PromptTrainer):
    """L = L_c + BETA L_de + GAMMA L_ind over causal features e and spurious ones s of an image.

    L_c is the cross-entropy of z, the causal feature under each of N_TEMPLATES texts of its class.
    L_de is the cross-entropy of e, plus KL(uniform || s), so that s does not show the class. L_ind
    is cos^2(e, s) / 2. A test image is classified by z under the texts of each class in turn.
    """

    config_node = "CIPT"
    image_tower_untouched = True
    plain_cosine = False
    model_name = "causal_adapters"
    model: CausalAdapters
    settings_table = {
        "N_CTX": Setting(16, TOKENS, "Number of learned context words."),
        "CTX_INIT": Setting(
            "a photo of a", text(), "Words that the context begins with; the rest is random."
        ),
        "N_TEMPLATES": Setting(
            4,
            integer(1, len(IMAGENET_TEMPLATES)),
            "Texts per class: a step draws them from CLIP's 80 templates, a test takes the first.",
        ),
        "BETA": Setting(2.0, number(0), "Weight of the decomposition, L_de."),
        "GAMMA": Setting(5.0, number(0), "Weight of the independence, L_ind."),
        **COMMON,
    }
    search_space = {"OPTIM.LR": LogUniform(1e-4, 5e-3), "BETA": Choice((0.5, 1.0, 2.0, 4.0))}

    def context(self) -> Context:
        """Return N_CTX learned words."""
        return Context(self.settings.N_CTX)

    def build_prompts(self) -> CausalAdapters:
        """Return the context and the adapters.

        Raises:
            ValueError: a CTX_INIT of more tokens than N_CTX.
        """
        embed_dim = backbone_of(self.clip).embed_dim
        model = CausalAdapters(self.settings.N_CTX, self.backbone.text_width, embed_dim)
        words = start_of_context(self.clip, self.settings.CTX_INIT, self.settings.N_CTX)
        model.ctx.data[: len(words)] = words
        return model

    @cached_property
    def training_texts(self) -> Tensor:
        """Frozen unit texts (T, K, E) of the classes in all templates."""
        return self.styled_texts(len(IMAGENET_TEMPLATES))

    @cached_property
    def test_texts(self) -> Tensor:
        """Frozen unit texts (T, K, E) of the classes in the first T = N_TEMPLATES templates."""
        return self.styled_texts(self.settings.N_TEMPLATES)

    def styled_texts(self, count: int) -> Tensor:
        """Return unit texts (count, K, E) of the classes in the first templates."""
        names = [readable(name) for name in self.classnames]
        texts = [[style.format(name)] for style in IMAGENET_TEMPLATES[:count] for name in names]
        return mean_text_features(self.clip, texts).float().unflatten(0, (count, len(names)))

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, and the logits (B, K) of the causal features."""
        prompts = self.model()
        features, learned = self.image_features(images, prompts), self.text_features(prompts)
        return self.objective(features, learned, labels)

    def objective(self, features: Tensor, learned: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as `loss`, from image features (B, E) and learned texts (K, E)."""
        features = F.normalize(features.float(), dim=-1)
        causal, spurious = self.model.causal(features), self.model.spurious(features)
        drawn = torch.randperm(len(self.training_texts), device=labels.device)
        styled = self.training_texts[drawn[: self.settings.N_TEMPLATES]][:, labels]
        intervened = self.backbone.classify(self.model.intervene(causal, styled), learned)
        logits = self.backbone.classify(causal, learned)
        decomposition = F.cross_entropy(logits, labels) + distance_from_uniform(
            self.backbone.classify(spurious, learned)
        )
        cosine = F.cosine_similarity(causal.float(), spurious.float(), dim=-1)
        loss = (
            F.cross_entropy(intervened.flatten(0, 1), labels.repeat(len(styled)))
            + self.settings.BETA * decomposition
            + self.settings.GAMMA * cosine.square().mean() / 2
        )
        return loss, logits

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, K) of images (B, 3, H, W)."""
        return self.feature_logits(self.image_features(images, PromptSet()), text)

    def feature_logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, K) of image features (B, E): the mean over the test's texts.

        z under a text of class k is compared with the learned text of class k alone.
        """
        text = self.text_features(self.model()) if text is None else text
        causal = self.model.causal(F.normalize(features.float(), dim=-1)).unsqueeze(1)
        each = [  # (B, K) per template; all at once would need N_TEMPLATES times the memory
            self.backbone.classify(self.model.intervene(causal, styled), text.unsqueeze(1))
            for styled in self.test_texts
        ]
        return torch.stack(each).mean(0).squeeze(-1)


def start_of_context(clip: CLIPModel, words: str, n_ctx: int) -> Tensor:
    """Return the embeddings (n, D) of the n tokens of `words`.

    Raises:
        ValueError: more than `n_ctx` of them.
    """
    count = len(backbone_of(clip).tokenizer.ids(readable(words)))
    if count > n_ctx:
        raise ValueError(
            f"TRAINER.CIPT.N_CTX must be at least {count}, the tokens of CTX_INIT {words!r}, "
            f"got {n_ctx}"
        )
    return embed_words(clip, words, count)


def distance_from_uniform(logits: Tensor) -> Tensor:
    """Return the mean KL(uniform || softmax) of logits (B, K)."""
    return -logits.log_softmax(-1).mean() - math.log(logits.shape[-1])
