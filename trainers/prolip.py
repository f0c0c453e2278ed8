"""ProLIP: the image projection fine-tuned, held near its start (arXiv 2410.05270)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.clip.interface import backbone_of, openai_model
from causalclip.engine.feature_cache import Encoder, encoder_of
from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.fit import TensorFit
from causalclip.engine.prediction import Prediction, Reading
from causalclip.settings.constraints import integer, number, or_none
from causalclip.settings.search import Choice
from causalclip.settings.table import PREC, Setting


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedProjection(TensorFit):
    """The fine-tuned projection.

    Facts: weight and value of the squared distance from CLIP's projection, and the last loss.
    """

    projection: Tensor
    """Image projection (D, E)."""


class ProLIP(FeatureTrainer[FittedProjection]):
    """L = L_ce + WEIGHT ||P - P_clip||^2 over the image projection P; texts stay CLIP's.

    It reads and caches the image features before the projection.
    """

    config_node = "PROLIP"
    backbones = "OpenAI ViT"
    fit_class = FittedProjection
    settings_table = {
        "LR": Setting(
            1e-5, number(0, open_low=True), "Learning rate of Adam; falls to 0 along a cosine."
        ),
        "STEPS": Setting(300, integer(1, 1_000_000), "Steps, each on all training images."),
        "AUGMENT_EPOCHS": Setting(
            300,
            integer(1, 1_000_000),
            "Augmented passes over the training images, one per step; more steps repeat them.",
        ),
        "WEIGHT": Setting(
            None,
            or_none(number(0)),
            "Weight of the squared distance from CLIP's projection, lambda; None: 1 / shots.",
        ),
        "PREC": PREC,
    }
    search_space = {"LR": Choice((1e-5, 1e-4, 1e-3, 1e-2))}

    def build_method(self) -> None:
        """Encode the class names; keep CLIP's projection.

        Raises:
            ValueError: a backbone without a projection of its own.
        """
        backbone_of(self.clip).image_tower()
        visual = openai_model(self.clip, "ProLIP").visual
        self.projection = visual.proj.detach().float()
        super().build_method()

    @cached_property
    def encoder(self) -> Encoder:
        """CLIP's image tower without its projection: images to (B, D)."""
        whole = encoder_of(self)
        return replace(
            whole,
            encode=self.backbone.encode_unprojected,
            dim=len(self.projection),
            identity=f"{whole.identity} before its projection",
        )

    def fit(self) -> FittedProjection:
        """Return the projection after STEPS steps."""
        settings, shots = self.settings, len(self.dm.dataset.train_x) / len(self.classnames)
        passes = self.augmented_passes(min(settings.AUGMENT_EPOCHS, settings.STEPS))
        if settings.AUGMENT_EPOCHS < settings.STEPS:
            passes = cycle(passes)
        return fine_tuned(
            self.projection,
            passes,
            lambda features: self.backbone.classify(features, self.text),
            lr=settings.LR,
            steps=settings.STEPS,
            weight=1 / shots if settings.WEIGHT is None else settings.WEIGHT,
        )

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the softmax over the class texts of features (B, D) before the projection."""
        projected = features @ self.fitted.projection
        return Prediction(Reading.of_logits(self.backbone.classify(projected, self.text)))


def fine_tuned(
    start: Tensor,
    passes: Iterator[tuple[Tensor, Tensor]],
    classify: Callable[[Tensor], Tensor],
    *,
    lr: float,
    steps: int,
    weight: float,
) -> FittedProjection:
    """Return the projection after one step on each of `steps` passes.

    Args:
        start: CLIP's projection (D, E).
        passes: features (N, D) before the projection, and labels (N,), for each step.
        classify: function from projected features (N, E) to class logits (N, K).
        lr: learning rate of the first step; it falls to 0 along a cosine.
        steps: number of steps.
        weight: weight of the squared distance from `start`.
    """
    projection = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([projection], lr=lr, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss = distance = torch.zeros(())
    for features, labels in islice(passes, steps):
        distance = (projection - start).square().sum()
        loss = F.cross_entropy(classify(features @ projection), labels) + weight * distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    facts = {"weight": weight, "distance": distance.item(), "loss": loss.item()}
    print(f"Projection after {steps} steps, {facts}")
    return FittedProjection(projection=projection.detach(), facts=facts)
