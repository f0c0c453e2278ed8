"""MMRL: tokens of a shared space enter both towers and are classified too (arXiv 2503.08497)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.adapters import ComposedTokens, RepresentationTokens
from causalclip.clip.encode import encode_image_tokens, encode_image_tokens_twice
from causalclip.clip.interface import openai_model
from causalclip.clip.prompt_set import PromptSet
from causalclip.engine.contexts import DEPTH, TOKENS, handcrafted_features, tower_widths
from causalclip.engine.prompt_trainer import PromptTrainer
from causalclip.records.results import dataset_title
from causalclip.settings.constraints import integer, list_of, number, one_of
from causalclip.settings.search import GRADIENT_SPACE, LogUniform
from causalclip.settings.table import COMMON, TEMPLATE, Setting


class MMRL(PromptTrainer):
    """Tokens enter the upper layers; their outputs for an image are projected and classified too.

    L = ALPHA ce(class feature) + (1 - ALPHA) ce(token feature)
        + REG_WEIGHT (1 - cos(image, CLIP's)) + REG_WEIGHT (1 - cos(text, CLIP's))

    Trained classes are predicted by ALPHA times the logits of the class feature plus 1 - ALPHA
    times those of the token feature. New classes, other data sets and left-out domains are
    predicted by the class feature only (section 3.4).
    """

    config_node = "MMRL"
    backbones = "OpenAI ViT"
    model_name = "MultiModalRepresentationLearner"
    templated = True
    model: RepresentationTokens | ComposedTokens
    settings_table = {
        "N_REP_TOKENS": Setting(5, TOKENS, "Number of representation tokens."),
        "REP_LAYERS": Setting(
            [6, 7, 8, 9, 10, 11, 12],
            list_of(DEPTH),
            "Layers of both towers, counted from 1.",
            blocks="both",
        ),
        "REP_DIM": Setting(512, integer(1, 100_000), "Width of the representation space."),
        "ALPHA": Setting(0.7, number(0, 1), "Share of the class feature in loss and prediction."),
        "REG_WEIGHT": Setting(1.0, number(0), "Weight of the distance from CLIP, lambda."),
        "INFERENCE": Setting(
            "auto",
            one_of(("auto", "both", "class")),
            "Features to classify by; auto: both for trained classes, else the class feature.",
        ),
        "TEMPLATE": TEMPLATE,
        **COMMON,
    }
    search_space = {**GRADIENT_SPACE, "REG_WEIGHT": LogUniform(0.1, 10.0)}

    def build_prompts(self) -> nn.Module:
        """Return the tokens; keep zero-shot CLIP's features of the same texts.

        Raises:
            ValueError: layers that a tower does not have, or that do not rise; a ResNet.
        """
        layers, clip = self.settings.REP_LAYERS, self.clip
        if list(layers) != sorted(set(layers)):
            raise ValueError(f"TRAINER.{self.config_node}.REP_LAYERS must rise, got {list(layers)}")
        plain = openai_model(clip, type(self).__name__)
        widths = tower_widths(plain, text=layers[-1], vision=layers[-1])
        self.handcrafted = handcrafted_features(self, [self.template()])
        return self.tokens(*widths)

    def tokens(self, text_width: int, image_width: int) -> nn.Module:
        """Return the tokens, with a projection for each layer."""
        settings, embed_dim = self.settings, self.clip.text_projection.shape[1]
        sizes = settings.N_REP_TOKENS, settings.REP_DIM, settings.REP_LAYERS
        return RepresentationTokens(*sizes, text_width, image_width, embed_dim)

    # Features and logits

    def both_features(self, images: Tensor, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """Return the class feature and the token feature of images (B, 3, H, W), each (B, E)."""
        features, tokens = encode_image_tokens(self.clip, images, prompts.image_additions)
        return features, self.model.features(tokens)

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Return class logits (B, K) of images (B, 3, H, W), by both features or by one."""
        prompts = self.model()
        text = self.text_features(prompts) if text is None else text
        features, of_tokens = self.both_features(images, prompts)
        logits = self.backbone.classify(features, text)
        if not self.reads_both:
            return logits
        return self.blended(logits, self.backbone.classify(of_tokens, text))

    def blended(self, of_class: Tensor, of_tokens: Tensor) -> Tensor:
        """Return ALPHA `of_class` + (1 - ALPHA) `of_tokens`, of logits (B, K) or of losses."""
        return self.settings.ALPHA * of_class + (1 - self.settings.ALPHA) * of_tokens

    @property
    def reads_both(self) -> bool:
        """Whether the token feature classifies this run's classes too."""
        if self.settings.INFERENCE != "auto":
            return self.settings.INFERENCE == "both"
        trained_on, dataset = self.checkpointer.trained_on, self.cfg.DATASET
        same_set = trained_on is None or trained_on["dataset"] == dataset_title(self.cfg)
        same_classes = set(self.classnames) <= set(self.checkpointer.trained_names() or ())
        same_domains = set(dataset.TARGET_DOMAINS) <= set(dataset.SOURCE_DOMAINS)
        return same_set and same_classes and same_domains

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both cross-entropies plus both distances from frozen CLIP, and logits (B, K)."""
        prompts, weight = self.model(), self.settings.REG_WEIGHT
        text = self.text_features(prompts)
        features, tokens, frozen = encode_image_tokens_twice(
            self.clip, images, prompts.image_additions
        )
        logits = self.backbone.classify(features, text)
        token_logits = self.backbone.classify(self.model.features(tokens), text)
        entropies = F.cross_entropy(logits, labels), F.cross_entropy(token_logits, labels)
        loss = self.blended(*entropies) + weight * mean_distance(features, frozen)
        loss = loss + weight * mean_distance(text, self.handcrafted)
        return loss, self.blended(logits, token_logits)


def mean_distance(features: Tensor, frozen: Tensor) -> Tensor:
    """Return 1 - cos, averaged over N features (N, E) and frozen ones."""
    return 1 - F.cosine_similarity(features.float(), frozen.float(), dim=-1).mean()
