"""TDA: test-time adaptation by caches of the test images themselves (arXiv 2403.18293)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.settings.constraints import integer, number, ordered_pair
from causalclip.settings.dataclass_settings import config_from, settings_of
from causalclip.settings.table import PREC


@dataclass(frozen=True)
class TDAConfig:
    """Settings of TDA; the defaults are those of its code for ImageNet."""

    positive_shots: int = 3
    """Images per class in the positive cache; 0: no such cache."""
    positive_alpha: float = 2.0
    """Weight of the positive cache."""
    positive_beta: float = 5.0
    """Sharpness of the positive cache."""
    negative_shots: int = 2
    """Images per class in the negative cache; 0: no such cache."""
    negative_alpha: float = 0.117
    """Weight of the negative cache."""
    negative_beta: float = 1.0
    """Sharpness of the negative cache."""
    negative_entropy: tuple[float, ...] = (0.2, 0.5)
    """Range of the entropy, in nats over log2 K, of images for the negative cache."""
    negative_mask: tuple[float, ...] = (0.03, 1.0)
    """Range of the probability of the classes that images of the negative cache count against."""


class TDA(FeatureTrainer):
    """CLIP's logits + a positive cache - a negative one, of the test images seen so far.

    Nothing is trained. The images come one by one in an order drawn from SEED; their labels are
    not read. Rows of predictions.npz are in that order.
    """

    config_node = "TDA"
    settings_table = {
        **settings_of(
            TDAConfig,
            {
                "POSITIVE_SHOTS": integer(0, 10_000),
                "POSITIVE_ALPHA": number(0),
                "POSITIVE_BETA": number(0),
                "NEGATIVE_SHOTS": integer(0, 10_000),
                "NEGATIVE_ALPHA": number(0),
                "NEGATIVE_BETA": number(0),
                "NEGATIVE_ENTROPY": ordered_pair(number(0)),
                "NEGATIVE_MASK": ordered_pair(number(0, 1)),
            },
        ),
        "PREC": PREC,
    }

    @cached_property
    def config(self) -> TDAConfig:
        """The settings under TRAINER.TDA."""
        return config_from(TDAConfig, self.settings, where="TRAINER.TDA")

    def test_order(self, n: int) -> Tensor:
        """Return a random order (n,) of n test images; data sets are ordered by class."""
        return torch.randperm(n, generator=torch.Generator().manual_seed(self.cfg.SEED))

    def details(self) -> dict[str, Any]:
        """Return facts for results.json: test images were used, and in which order."""
        return {"test_time": True, "order": f"random, from SEED {self.cfg.SEED}"}

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the readings of image features (B, E), starting from empty caches."""
        return self.predictor()(features)

    def predictor(self) -> Callable[[Tensor], Prediction]:
        """Return a function that predicts features (B, E), batch by batch, from empty caches on."""
        caches = TestTimeCaches(self.config, len(self.text))

        def predict(features: Tensor) -> Prediction:
            unit = F.normalize(features, dim=-1)
            pairs = zip(unit, self.backbone.classify(unit, self.text), strict=True)
            return Prediction(Reading.of_logits(torch.stack([caches(*pair) for pair in pairs])))

        return predict


class TestTimeCaches:
    """The positive and the negative cache of one sequence of test images."""

    __test__ = False  # keeps pytest from collecting this class

    def __init__(self, config: TDAConfig, n_classes: int) -> None:
        """Start with empty caches for K classes."""
        self.config = config
        self.positive = Cache(n_classes, config.positive_shots)
        self.negative = Cache(n_classes, config.negative_shots)

    def __call__(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Return adapted logits (K,) of an image, from its unit feature (E,) and CLIP's logits.

        The image is added to the caches first, as in the published code.
        """
        config, p = self.config, logits.detach().softmax(-1)
        label, entropy = int(p.argmax()), float(torch.special.entr(p).sum())
        self.positive.add(label, feature, F.one_hot(p.argmax(), len(p)), entropy)
        low, high = config.negative_entropy
        if low < entropy / math.log2(len(p)) < high:
            least, most = config.negative_mask
            self.negative.add(label, feature, (p > least) & (p < most), entropy)
        return (
            logits
            + config.positive_alpha * self.positive.logits(feature, config.positive_beta)
            - config.negative_alpha * self.negative.logits(feature, config.negative_beta)
        )


class Cache:
    """The images of lowest entropy so far, for each class that CLIP predicts."""

    def __init__(self, n_classes: int, shots: int) -> None:
        """Start empty, with room for `shots` images of each of K classes."""
        self.entropy = torch.full((n_classes, shots), math.inf, dtype=torch.float64)
        self.keys, self.values = torch.empty(0), torch.empty(0)

    def add(self, label: int, key: Tensor, value: Tensor, entropy: float) -> None:
        """Store a unit feature (E,) and its value (K,); if full, in place of a less certain one."""
        n_classes, shots = self.entropy.shape
        if not shots:
            return
        if not len(self.keys):
            self.keys = key.new_zeros(n_classes, shots, len(key))
            self.values = key.new_zeros(n_classes, shots, len(value))
        place = int(self.entropy[label].argmax())
        if entropy < self.entropy[label, place]:
            self.entropy[label, place] = entropy
            self.keys[label, place] = key.detach()
            self.values[label, place] = value.to(key)

    def logits(self, feature: Tensor, beta: float) -> Tensor:
        """Return sum_i exp(-beta (1 - z k_i)) v_i, (K,), over the kept keys; zeros without any."""
        if not len(self.keys):
            return feature.new_zeros(len(self.entropy))
        affinity = torch.exp(-beta * (1 - self.keys @ feature))
        kept = self.entropy.isfinite().to(affinity)
        return torch.einsum("ks,ksc->c", affinity * kept, self.values)
