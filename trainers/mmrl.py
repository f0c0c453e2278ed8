"""MMRL: tokens of a space between the towers read what is special (arXiv 2503.08497)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.encode import encode_image_tokens
from causalclip.clip.kinds import openai_model
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.representation import RepresentationTokens
from causalclip.clip.texts import ClassTokens, template_tokens
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.prompt_trainer import DEPTH, TOKENS, PromptTrainer, tower_widths
from causalclip.engine.settings import ListOf, Number, OneOf, Text, Whole


class MMRL(PromptTrainer):
    """Tokens enter the upper layers; what they read in an image is projected and classified too.

    L = ALPHA ce(class feature) + (1 - ALPHA) ce(token feature)
        + REG_WEIGHT (1 - cos(image, CLIP's)) + REG_WEIGHT (1 - cos(text, CLIP's))

    Classes that were trained are read by both, ALPHA of the logits of the one and 1 - ALPHA of the
    other; new classes, other data sets and left-out domains by the class feature alone (3.4).
    """

    config_node = "MMRL"
    model_name = "MultiModalRepresentationLearner"
    model: RepresentationTokens
    defaults = {
        "N_REP_TOKENS": 5,
        "REP_LAYERS": [6, 7, 8, 9, 10, 11, 12],  # of both towers, counted from 1
        "REP_DIM": 512,
        "ALPHA": 0.7,
        "REG_WEIGHT": 1.0,  # lambda of the paper
        "INFERENCE": "auto",  # by which features: as above, or always by both or class
        "TEMPLATE": "",  # empty takes the data set's published template
        "PREC": "fp32",
        "PROJECTION": "",
    }
    constraints = {
        "N_REP_TOKENS": TOKENS,
        "REP_LAYERS": ListOf(DEPTH),
        "REP_DIM": Whole(1, 100_000),
        "ALPHA": Number(0, 1),
        "REG_WEIGHT": Number(0),
        "INFERENCE": OneOf(("auto", "both", "class")),
        "TEMPLATE": Text("{}"),
    }

    def build_prompts(self) -> nn.Module:
        """The tokens, and what zero-shot CLIP makes of the same texts.

        Raises:
            ValueError: layers that a tower does not have, or that do not rise; a ResNet.
        """
        layers, clip = self.settings.REP_LAYERS, self.clip
        if list(layers) != sorted(set(layers)):
            raise ValueError(f"TRAINER.MMRL.REP_LAYERS must rise, got {list(layers)}")
        text_width, image_width = tower_widths(
            openai_model(clip, "MMRL"), text=layers[-1], vision=layers[-1]
        )
        self.handcrafted = class_features(clip, self.classnames, [self.template()])
        return RepresentationTokens(
            self.settings.N_REP_TOKENS,
            self.settings.REP_DIM,
            layers,
            text_width,
            image_width,
            clip.text_projection.shape[1],
        )

    def template(self) -> str:
        """The hand-crafted template of the texts into which the tokens go."""
        return self.settings.TEMPLATE or dataset_template(self.cfg)

    def texts(self, names: Sequence[str]) -> ClassTokens:
        """The template filled in with K class names, (K, L)."""
        length = self.clip.context_length
        return template_tokens(names, self.template(), context_length=length).to(self.device)

    # What an image is classified by

    def both_features(self, images: Tensor, prompts: PromptSet) -> tuple[Tensor, Tensor]:
        """The class feature and the token feature of images (B, 3, H, W), each (B, E)."""
        features, tokens = encode_image_tokens(self.clip, images, prompts.image_additions)
        return features, self.model.features(tokens)

    def logits(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """Class logits (B, K) of images (B, 3, H, W), by both features or by the class feature."""
        prompts = self.model()
        text = self.text_features(prompts) if text is None else text
        features, of_tokens = self.both_features(images, prompts)
        logits = self.classify(features, text)
        return self.blended(logits, self.classify(of_tokens, text)) if self.reads_both else logits

    def blended(self, of_class: Tensor, of_tokens: Tensor) -> Tensor:
        """ALPHA of the one logits (B, K) and 1 - ALPHA of the others."""
        return self.settings.ALPHA * of_class + (1 - self.settings.ALPHA) * of_tokens

    @property
    def reads_both(self) -> bool:
        """Whether this run's classes are read by the tokens too."""
        if self.settings.INFERENCE != "auto":
            return self.settings.INFERENCE == "both"
        there = self.trained_on is None or self.trained_on["dataset"] == self.cfg.DATASET.NAME
        trained = set(self.classnames) <= set(self.trained_names or ())
        return there and trained and not self.leaves_out_domains

    @property
    def leaves_out_domains(self) -> bool:
        """Whether it is tested on domains that were not trained on."""
        sources, targets = self.cfg.DATASET.SOURCE_DOMAINS, self.cfg.DATASET.TARGET_DOMAINS
        return not set(targets) <= set(sources)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both cross-entropies and both distances from frozen CLIP; the logits of both features."""
        prompts, weight = self.model(), self.settings.REG_WEIGHT
        text = self.text_features(prompts)
        features, of_tokens = self.both_features(images, prompts)
        logits, token_logits = self.classify(features, text), self.classify(of_tokens, text)
        entropies = F.cross_entropy(logits, labels), F.cross_entropy(token_logits, labels)
        frozen = self.image_features(images, PromptSet())
        loss = self.blended(*entropies) + weight * mean_distance(features, frozen)
        loss = loss + weight * mean_distance(text, self.handcrafted)
        return loss, self.blended(logits, token_logits)


def mean_distance(features: Tensor, frozen: Tensor) -> Tensor:
    """1 - cos, averaged over N features (N, E) and frozen ones."""
    return 1 - F.cosine_similarity(features.float(), frozen.float(), dim=-1).mean()
