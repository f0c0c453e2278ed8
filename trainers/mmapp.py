"""MMApp: MMA++, MMA with many texts per class and features that agree at all scales (TPAMI 2026).

Yang et al., MMA++: Effective Multi-Modal Adaptation for Vision-Language Models; its code calls the
trainer MultiModalAdapterPP, and its node MMADAPTERPP.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.adapters import ConsistentAdapters
from causalclip.clip.encode import encode_classes
from causalclip.clip.injection import prompted
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.texts import ClassTokens, readable
from causalclip.clip.zeroshot import IMAGENET_TEMPLATES, mean_text_features
from causalclip.data.catalogue import given_template
from causalclip.engine.contexts import descriptions_of, tokens_of
from causalclip.engine.draws import training_seed
from causalclip.seeding import sample_seed
from causalclip.settings.constraints import number
from causalclip.settings.search import GRADIENT_SPACE, LogUniform, Shares
from causalclip.settings.table import COMMON, TEMPLATE, Setting
from causalclip.trainers.mma import MMA


class MMApp(MMA):
    """L = ce - SCALE_REG (cos(text, text at a lower scale) + cos(image, image at a lower scale)).

    A step draws one sentence of each class and a lower scale of the adapters at random. A test
    uses the mean over all sentences: those of DATASET.DESCRIPTIONS, else CLIP's 80 templates.
    """

    config_node = "MMAPP"
    model: ConsistentAdapters
    settings_table = {
        **{key: MMA.settings_table[key] for key in ("ADAPTER_START", "ADAPTER_END", "ADAPTER_DIM")},
        "ADAPTER_TRAIN_SCALE": Setting(
            0.01, number(0, open_low=True), "Scale alpha of the adapters in training."
        ),
        "ADAPTER_TEST_SCALE": Setting(0.0065, number(0), "Scale of the adapters in a test."),
        "ADAPTER_TRAIN_SCALE_REG": Setting(
            2.5, number(0), "Weight of the agreement with features at a lower scale."
        ),
        "ADAPTER_DROP": Setting(
            0.1, number(0, 1, open_high=True), "Dropout of the shared features, in training."
        ),
        "TEMPLATE": TEMPLATE,
        **COMMON,
    }
    search_space = {
        **GRADIENT_SPACE,
        "ADAPTER_START": Shares((0.5, 0.75, 1.0)),
        "ADAPTER_TRAIN_SCALE": LogUniform(0.003, 0.1),
        "ADAPTER_TRAIN_SCALE_REG": LogUniform(0.3, 10.0),
    }

    def build_prompts(self) -> nn.Module:
        """Return the adapters, and count the sentences of each class; raise as MMA."""
        self.counts = [len(own) for own in self.sentences(self.classnames)]
        return super().build_prompts()

    def adapters(self, *sizes: int) -> ConsistentAdapters:
        """Return adapters; `sizes` are as in MMA."""
        settings = self.settings
        return ConsistentAdapters(
            *sizes,
            scale=settings.ADAPTER_TRAIN_SCALE,
            test_scale=settings.ADAPTER_TEST_SCALE,
            dropout=settings.ADAPTER_DROP,
        )

    # Texts

    def sentences(self, names: Sequence[str]) -> list[list[str]]:
        """Return the sentences of each of K class names."""
        if (described := descriptions_of(self, names)) is not None:
            return described
        template = self.settings.TEMPLATE or given_template(self.cfg)
        templates = [template] if template else IMAGENET_TEMPLATES
        return [[text.replace("{}", readable(name)) for text in templates] for name in names]

    def texts(self, names: Sequence[str]) -> ClassTokens:
        """Return all sentences of K class names, one class after the other, (S, L); on the CPU."""
        flat = [text for own in self.sentences(names) for text in own]
        return tokens_of(self, flat, "{}")

    def draws(self) -> random.Random:
        """Return the random generator of a step; it depends on seed, epoch and batch only."""
        step = f"{self.epoch}/{getattr(self, 'batch_idx', 0)}"
        return random.Random(sample_seed(f"MMApp {step}", training_seed(self.cfg)))

    def drawn_texts(self, draws: random.Random) -> ClassTokens:
        """Return one sentence of each class at random, (K, L)."""
        firsts = accumulate(self.counts[:-1], initial=0)
        drawn = zip(firsts, self.counts, strict=True)
        rows = [first + draws.randrange(count) for first, count in drawn]
        tokens, nowhere = self.class_tokens.tokens[rows], self.class_tokens.positions[rows]
        return ClassTokens(tokens, nowhere, leading=True).sent_to(self.device)

    def text_features(self, prompts: PromptSet) -> Tensor:
        """Return (K, E): in training of one random sentence per class, else means over all."""
        if self.model.training:
            return encode_classes(self.clip, self.drawn_texts(self.draws()), prompts)
        return self.mean_features(self.classnames, prompts)

    def learned_text(self, names: Sequence[str]) -> Tensor:
        """Return the mean features (K, E) of any class names under the learned prompts."""
        return self.mean_features(names, self.model())

    def mean_features(self, names: Sequence[str], prompts: PromptSet) -> Tensor:
        """Return the unit mean (K, E) over the sentences of K class names, without a graph."""
        with prompted(self.clip, text_additions=prompts.text_additions):
            return mean_text_features(self.clip, self.sentences(names))

    # Training

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return cross-entropy minus the agreement with a lower scale, and logits (B, K)."""
        draws = self.draws()
        texts = self.drawn_texts(draws)
        features, text = self.both_features(images, texts, self.model())
        logits = self.backbone.classify(features, text)
        lower = draws.random() * self.settings.ADAPTER_TRAIN_SCALE
        with torch.no_grad():
            near = self.both_features(images, texts, self.model(lower))
        pairs = zip((features, text), near, strict=True)
        agreement = sum(F.cosine_similarity(own, other, dim=-1).mean() for own, other in pairs)
        loss = F.cross_entropy(logits, labels)
        return loss - self.settings.ADAPTER_TRAIN_SCALE_REG * agreement, logits

    def both_features(
        self, images: Tensor, texts: ClassTokens, prompts: PromptSet
    ) -> tuple[Tensor, Tensor]:
        """Return image features (B, E) and the features (K, E) of the texts, in fp32."""
        text = encode_classes(self.clip, texts, prompts)
        return self.image_features(images, prompts).float(), text.float()
