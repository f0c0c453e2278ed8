"""TPT: prompts tuned at test time, so that views of an image agree (arXiv 2209.07511)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import torch
from dassl.data.transforms import build_transform
from PIL import Image
from torch import Tensor
from torchvision.transforms import AugMix, Compose, ToTensor
from yacs.config import CfgNode

from causalclip.clip.encode import encode_classes
from causalclip.clip.prompt_set import PromptSet
from causalclip.engine.contexts import Context
from causalclip.engine.draws import draw_for, generators_kept
from causalclip.engine.feature_cache import Encoder, encoder_of
from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.settings.constraints import integer, number
from causalclip.settings.dataclass_settings import config_from, settings_of
from causalclip.settings.table import PREC

# AugMix draws one of torchvision's first two levels of ten; the published severity 1 draws a level
# from 0.1 to 1.
LEVELS = 2
ONE_AT_A_TIME = Lock()  # threads share torch's generator


@dataclass(frozen=True)
class TPTConfig:
    """Settings of TPT; the defaults are those of its code."""

    ctx_init: str = "a photo of a"
    """Words before the class name, from which the tuning on each image starts."""
    n_views: int = 64
    """Views of a test image: the image itself, and random views by INPUT.TRANSFORMS."""
    augmix: bool = True
    """Mix AugMix's changes into each random view."""
    confident: float = 0.1
    """Share of the views to use: those of lowest entropy."""
    lr: float = 0.005
    """Step size of AdamW."""
    steps: int = 1
    """Steps on each image."""


class TPT(FeatureTrainer):
    """CoOp's words, tuned on each test image so that its views give one certain answer.

    Nothing is kept from image to image, and no label is used.
    """

    config_node = "TPT"
    settings_table = {
        **settings_of(
            TPTConfig,
            {
                "N_VIEWS": integer(2, 10_000),
                "CONFIDENT": number(0, 1, open_low=True),
                "LR": number(0, open_low=True),
                "STEPS": integer(1, 1000),
            },
        ),
        "PREC": PREC,
    }

    @cached_property
    def config(self) -> TPTConfig:
        """The settings under TRAINER.TPT."""
        return config_from(TPTConfig, self.settings, where="TRAINER.TPT")

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raise as the base class, and for settings that leave no word or no view to use."""
        super().check_cfg(cfg)
        node = cfg.TRAINER.TPT
        words, count, share = node.CTX_INIT, node.N_VIEWS, node.CONFIDENT
        if not words.strip():
            raise ValueError(f"TRAINER.TPT.CTX_INIT must be a word or more, got {words!r}")
        if int(count * share) < 1:
            raise ValueError(f"TRAINER.TPT.CONFIDENT must leave one of {count} views, got {share}")

    def build_method(self) -> None:
        """Embed the words and the class names."""
        context = Context.of_words(self.settings)
        start = context.start(self.clip)
        assert start is not None, "CTX_INIT has words"
        self.start = start.float()
        self.class_tokens = context.tokens(self.classnames, self.clip).to(self.device)

    def details(self) -> dict[str, Any]:
        """Return facts for results.json: test images were used, and in which order."""
        return {"test_time": True, "order": "as listed, each image alone"}

    # Views

    @property
    def test_views(self) -> int:
        """Number V of views of a test image."""
        return self.config.n_views

    @cached_property
    def encoder(self) -> Encoder:
        """CLIP's image tower on the V views of each image, with their features joined, (B, V E)."""
        plain, count = encoder_of(self), self.test_views

        def encode(images: Tensor) -> Tensor:  # (B, V, 3, R, R)
            return torch.stack([plain.encode(views).flatten() for views in images])

        views = Views(plain.transform, self.random_view(), count, self.cfg.SEED)
        return replace(plain, encode=encode, dim=count * plain.dim, transform=views)

    def random_view(self) -> Compose:
        """Return the transform of a random view: that of training images, with AugMix."""
        transform = build_transform(self.cfg, is_train=True)
        assert transform is not None, "INPUT.NO_TRANSFORM leaves no tensor"
        steps = list(transform.transforms)
        if self.config.augmix:
            place = next(i for i, step in enumerate(steps) if isinstance(step, ToTensor))
            steps.insert(place, AugMix(LEVELS, all_ops=False))
        return Compose(steps)

    # Prediction

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the readings of the features (B, V E) of images, each in V views."""
        images = features.unflatten(-1, (self.test_views, -1))
        return Prediction(Reading.of_logits(torch.stack([self.logits(views) for views in images])))

    def logits(self, views: Tensor) -> Tensor:
        """Return class logits (K,) of the first of an image's views (V, E), by words tuned on them.

        The gradient is that of the first view, with constant words.
        """

        def classify(context: Tensor, images: Tensor) -> Tensor:
            text = encode_classes(self.clip, self.class_tokens, PromptSet(text=(context,)))
            return self.backbone.classify(images, text)

        fixed = views.detach()
        context = tuned(self.start, lambda context: classify(context, fixed), self.config)
        return classify(context, views[0])


@torch.enable_grad()
def tuned(start: Tensor, classify: Callable[[Tensor], Tensor], config: TPTConfig) -> Tensor:
    """Return the context (n, D) after STEPS on the entropy of the confident views' mean answer.

    `classify` returns the logits (V, K) of all views under a context. The confident views are
    selected once, before the first step.
    """
    context = start.detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([context], config.lr)
    rows = None
    for _ in range(config.steps):
        logits = classify(context)
        if rows is None:
            entropy = torch.special.entr(logits.detach().softmax(-1)).sum(-1)
            rows = entropy.argsort()[: int(len(logits) * config.confident)]
        (context.grad,) = torch.autograd.grad(marginal_entropy(logits[rows]), context)
        optimizer.step()
    return context.detach()


def marginal_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the mean answer of S views, from logits (S, K), in nats."""
    log_mean = logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))
    return -(log_mean.exp() * log_mean).sum()


@dataclass(frozen=True)
class Views:
    """A transform from an image to its plain view and random views, (V, 3, R, R).

    The views depend on the seed and the pixels only: no batch, order or process changes them.
    """

    plain: Callable[[Image.Image], Tensor]
    random: Callable[[Image.Image], Tensor]
    count: int
    seed: int

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the views of an image; the random generators stay as they were."""
        pixels = int.from_bytes(hashlib.sha256(image.tobytes()).digest(), "big")
        with ONE_AT_A_TIME, generators_kept():
            draw_for(self.seed, pixels)
            drawn = [self.random(image) for _ in range(self.count - 1)]
        return torch.stack([self.plain(image), *drawn])
