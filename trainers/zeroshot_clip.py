"""ZeroshotCLIP: CLIP with one hand-crafted template, nothing learned (arXiv 2103.00020)."""

from __future__ import annotations

import torch
from torch import Tensor

from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.prediction import Prediction, Reading


class ZeroshotCLIP(CLIPTrainer):
    """Cosine between the image and "a photo of a <class>." (or the data set's own template)."""

    config_node = "ZEROSHOTCLIP"
    image_tower_untouched = True
    defaults = {
        "PREC": "fp32",
        "TEMPLATE": "",  # with one {}; empty takes the data set's published template
        "PROJECTION": "",
    }

    def build_method(self) -> None:
        """Encode the class texts once."""
        with torch.no_grad():
            self.text = class_features(self.clip, self.classnames, self.templates())

    def templates(self) -> list[str]:
        """The hand-crafted templates whose text features are averaged; here one."""
        return [self.settings.TEMPLATE or dataset_template(self.cfg)]

    def train(self) -> None:
        """Nothing to learn: evaluate."""
        print(f"{type(self).__name__} learns nothing: evaluation only")
        self.test()

    def predict_features(self, features: Tensor) -> Prediction:
        """Softmax over the hand-crafted texts, of image features (B, E)."""
        return Prediction(Reading.of_logits(self.classify(features, self.text)))
