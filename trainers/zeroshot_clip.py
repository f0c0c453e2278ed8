"""ZeroshotCLIP: CLIP with a hand-crafted template, or an ensemble of them (arXiv 2103.00020)."""

from __future__ import annotations

import torch
from torch import Tensor

from causalclip.clip.zeroshot import IMAGENET_TEMPLATES_SELECT
from causalclip.data.catalogue import given_template
from causalclip.engine.contexts import handcrafted_features
from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.settings.table import PREC, PROJECTION, TEMPLATE


class ZeroshotCLIP(FeatureTrainer):
    """Cosine between the image and "a photo of a <class>." (or the data set's own template)."""

    config_node = "ZEROSHOTCLIP"
    settings_table = {"PREC": PREC, "TEMPLATE": TEMPLATE, "PROJECTION": PROJECTION}
    ensemble = False
    """Whether text features are averaged over CLIP's seven ImageNet templates too."""

    def build_method(self) -> None:
        """Encode the class names."""
        with torch.no_grad():
            self.text = handcrafted_features(self, self.templates())

    def templates(self) -> list[str]:
        """Return the templates whose text features are averaged."""
        if not self.ensemble:
            return [self.template()]
        given = self.settings.TEMPLATE or given_template(self.cfg)
        if not given and self.cfg.DATASET.NAME == "ImageNet":
            return list(IMAGENET_TEMPLATES_SELECT)  # as published: only the seven
        return [*IMAGENET_TEMPLATES_SELECT, self.template()]

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the softmax over the class texts of image features (B, E)."""
        return Prediction(Reading.of_logits(self.backbone.classify(features, self.text)))


class ZeroshotCLIP2(ZeroshotCLIP):
    """Text features averaged over CLIP's seven ImageNet templates and the data set's own."""

    config_node = "ZEROSHOTCLIP2"
    ensemble = True
