"""LPPlusPlus: LP++, a linear probe that blends images with text (arXiv 2404.02285)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.fit import TensorFit
from causalclip.engine.prediction import Prediction, Reading
from causalclip.settings.constraints import integer
from causalclip.settings.table import PREC, Setting

Labelled = tuple[Tensor, Tensor]
"""Unit features (N, E) and labels (N,)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BlendedProbe(TensorFit):
    """Class logits z (w_k + alpha_k t_k) + b_k of unit features z.

    Facts: the step that was kept and its validation accuracy in per cent (None if not measured).
    """

    weight: Tensor
    """Class weights w_k, (K, E)."""
    bias: Tensor
    """Class biases b_k, (K,)."""
    alpha: Tensor
    """Weights of the texts, (K,)."""

    def logits(self, features: Tensor, text: Tensor) -> Tensor:
        """Return class logits (B, K) of unit features (B, E), for unit texts (K, E)."""
        return features @ self.weight.T + self.bias + self.alpha * (features @ text.T)


STEPS = integer(1, 1_000_000)


class LPPlusPlus(FeatureTrainer[BlendedProbe]):
    """Keep the probe of the best step on the validation split; without a split, of the last step.

    Both step sizes are computed from the data.
    """

    config_node = "LPPLUSPLUS"
    fit_class = BlendedProbe
    searches = True
    settings_table = {
        "STEPS": Setting(300, STEPS, "Steps of gradient descent on all training images at once."),
        "ALPHA_EVERY": Setting(10, STEPS, "Steps between two updates of the blending weights."),
        "PREC": PREC,
    }

    @classmethod
    def knows_other_classes(cls, settings: CfgNode) -> bool:
        """Return False: a class without images has no weight."""
        return False

    def fit(self) -> BlendedProbe:
        """Return the probe of one augmented pass over the training images."""
        settings = self.settings
        features, labels = next(self.augmented_passes(1))
        if (val := self.searched()) is not None:
            val = F.normalize(val[0], dim=-1), val[1]
        probe = fit_blended_probe(
            (F.normalize(features, dim=-1), labels),
            self.text,
            val,
            steps=settings.STEPS,
            alpha_every=settings.ALPHA_EVERY,
        )
        print(f"LP++ on {len(labels)} images, {dict(probe.facts)}")
        return probe

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the probe's reading of image features (B, E)."""
        logits = self.fitted.logits(F.normalize(features, dim=-1), self.text)
        return Prediction(Reading.of_logits(logits))


def fit_blended_probe(
    train: Labelled, text: Tensor, val: Labelled | None, *, steps: int = 300, alpha_every: int = 10
) -> BlendedProbe:
    """Fit LP++ on images and unit texts (K, E), by gradient descent on the cross-entropy.

    w_k starts as the sum of the images of its class, alpha_k as 250 times the mean cosine of images
    and their texts. Both step sizes are inverse Lipschitz constants. As in the published code,
    alpha's gradient is the sum of the gradients of all steps so far. Return the best step on `val`,
    of equally good steps the last; without `val`, the last step.
    """
    features, labels = train
    members = F.one_hot(labels, len(text)).to(features)  # (N, K)
    cosines = features @ text.T
    weight = (members.T @ features).requires_grad_()
    bias = torch.zeros(len(text)).to(features).requires_grad_()
    matching = (members * cosines).sum(0) / members.sum(0)
    alpha = torch.full_like(bias, 250 * matching.mean().item()).requires_grad_()
    largest = torch.linalg.eigvalsh(features.T.double() @ features.double())[-1].item()
    optimizer = torch.optim.SGD([weight, bias], lr=4 * len(labels) / largest, momentum=0.9)
    alpha_rate = len(labels) / (4 * cosines.square().sum(0).max().item())
    hits = torch.zeros((), device=weight.device, dtype=torch.long)
    # Compared on the device, so that the host does not wait for it in each step.
    best = [t.detach() for t in (weight, bias, alpha, hits, hits)]
    for step in range(1, steps + 1):
        probe = BlendedProbe(weight=weight, bias=bias, alpha=alpha, facts={})
        loss = F.cross_entropy(probe.logits(features, text), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            if step % alpha_every == 0 and alpha.grad is not None:
                alpha -= alpha_rate * alpha.grad
            if val is not None:
                hits = (probe.logits(val[0], text).argmax(-1) == val[1]).sum()
            now = (weight, bias, alpha, torch.full_like(hits, step), hits)
            better = hits >= best[-1]
            best = [torch.where(better, new, old) for new, old in zip(now, best, strict=True)]
    weight, bias, alpha, *counts = best
    number, count = torch.stack(counts).tolist()
    accuracy = None if val is None else 100 * count / len(val[1])
    found = {"step": number, "validation_accuracy": accuracy}
    return BlendedProbe(weight=weight, bias=bias, alpha=alpha, facts=found)
