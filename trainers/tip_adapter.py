"""Tip-Adapter and Tip-Adapter-F: CLIP plus a cache of the few-shot features (arXiv 2111.03930)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.fit import TensorFit
from causalclip.engine.prediction import Prediction, Reading
from causalclip.settings.constraints import integer, list_of, number
from causalclip.settings.search import GRADIENT_SPACE
from causalclip.settings.table import PREC, Setting


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedCache(TensorFit):
    """The cache of few-shot features, with its strengths alpha and beta.

    Facts: alpha, beta and their validation accuracy in per cent (None where there was no search).
    """

    keys: Tensor
    """Unit features F (N, E)."""
    labels: Tensor
    """Classes (N,) of the features."""
    alpha: Tensor
    """Residual ratio, a scalar."""
    beta: Tensor
    """Sharpness, a scalar."""

    def logits(self, features: Tensor, n_classes: int) -> Tensor:
        """Return ALPHA times `cache_logits` (B, K) of unit features (B, E), for K = `n_classes`."""
        values = one_hot(self.labels, n_classes)
        return self.alpha * cache_logits(features @ self.keys.T, values, self.beta)


class TipAdapter(FeatureTrainer[FittedCache]):
    """scale z T' + alpha exp(-beta (1 - z F')) L over cached features F and one-hot labels L.

    Nothing is trained. F averages AUGMENT_EPOCHS augmented passes; alpha and beta are searched on
    the validation split, never on the test set (the published code does so on ImageNet).
    """

    config_node = "TIPADAPTER"
    fit_class = FittedCache
    settings_table = {
        "AUGMENT_EPOCHS": Setting(10, integer(1, 1000), "Augmented passes to average over."),
        "ALPHA": Setting(1.17, number(0), "Residual ratio alpha, if it is not searched."),
        "BETA": Setting(1.0, number(0), "Sharpness beta, if it is not searched."),
        "SEARCH_SCALE": Setting(
            [7.0, 3.0], list_of(number(0.1, open_low=True)), "Bounds of beta and alpha to try."
        ),
        "SEARCH_STEP": Setting(
            [200, 20],
            list_of(integer(1, 10_000), least=0),
            "Number of values of beta and alpha to try; empty: no search.",
        ),
        "PREC": PREC,
    }

    @classmethod
    def knows_other_classes(cls, settings: CfgNode) -> bool:
        """Return False: the cache has images of its own classes only."""
        return False

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raise as the base class, and for wrong lengths of SEARCH_SCALE and SEARCH_STEP."""
        super().check_cfg(cfg)
        node = cfg.TRAINER[self.config_node]
        for key, lengths in (("SEARCH_SCALE", (2,)), ("SEARCH_STEP", (0, 2))):
            if len(node[key]) not in lengths:
                allowed = " or ".join(map(str, lengths))
                raise ValueError(
                    f"TRAINER.{self.config_node}.{key} must hold {allowed} numbers, of beta and of "
                    f"alpha, got {node[key]}"
                )

    # Fitting

    @property
    def searches(self) -> bool:
        """Whether there is a grid to search."""
        return bool(self.settings.SEARCH_STEP)

    def fit(self) -> FittedCache:
        """Return the cache, with the strengths that are best on the validation split."""
        keys, labels = self.cache()
        alpha, beta, accuracy = self.search(keys, labels)
        found = {"alpha": alpha, "beta": beta, "validation_accuracy": accuracy}
        print(f"Cache of {len(keys)} images, {found}")
        strengths = {"alpha": torch.tensor(alpha), "beta": torch.tensor(beta)}
        return FittedCache(keys=keys, labels=labels, **strengths, facts=found)

    @torch.no_grad()
    def cache(self) -> tuple[Tensor, Tensor]:
        """Return keys (N, E), normalised mean features over augmented passes, and labels (N,)."""
        passes = self.augmented_passes(self.settings.AUGMENT_EPOCHS)
        total, labels = next(passes)
        for features, _ in passes:
            total = total + features
        return F.normalize(total, dim=-1), labels

    @torch.no_grad()
    def search(self, keys: Tensor, labels: Tensor) -> tuple[float, float, float | None]:
        """Return the best alpha, beta and accuracy in per cent on the validation split.

        Keys are unit rows (N, E) with labels (N,). Of equally good pairs the first is taken.
        """
        start = self.settings.ALPHA, self.settings.BETA, None
        if (validation := self.searched()) is None:
            print("No validation images of its own to search on: alpha and beta stay as configured")
            return start
        features, targets = F.normalize(validation[0], dim=-1), validation[1]
        clip_logits = self.backbone.classify(features, self.text)
        betas, alphas = search_grid(self.settings.SEARCH_SCALE, self.settings.SEARCH_STEP)
        affinity, values, hits = features @ keys.T, one_hot(labels, len(self.text)), []
        for beta in betas:
            cached = cache_logits(affinity, values, beta)
            hits += [
                ((clip_logits + alpha * cached).argmax(-1) == targets).sum() for alpha in alphas
            ]
        counts = torch.stack(hits).tolist()  # read once: each read waits for the device
        row, column = divmod(counts.index(max(counts)), len(alphas))
        return alphas[column], betas[row], 100 * max(counts) / len(targets)

    # Prediction

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the reading of CLIP's plus the cache's logits, for image features (B, E)."""
        features = F.normalize(features, dim=-1)
        cached = self.fitted.logits(features, len(self.text))
        return Prediction(Reading.of_logits(self.backbone.classify(features, self.text) + cached))


class TipAdapterF(TipAdapter):
    """The cache's keys fine-tuned by AdamW; OPTIM gives LR and MAX_EPOCH.

    The keys of the last epoch are kept; the published code keeps the best epoch on the test set.
    """

    config_node = "TIPADAPTERF"
    search_space = GRADIENT_SPACE

    def cache(self) -> tuple[Tensor, Tensor]:
        """Return keys (N, E) after fine-tuning, and labels (N,)."""
        keys, labels = super().cache()
        return self.fine_tuned(keys, labels), labels

    def fine_tuned(self, keys: Tensor, labels: Tensor) -> Tensor:
        """Return keys (N, E) after MAX_EPOCH epochs under the configured alpha and beta."""
        optim, loader = self.cfg.OPTIM, self.train_loader_x
        keys = keys.clone().requires_grad_()
        values = one_hot(labels, len(self.text))
        optimizer = torch.optim.AdamW([keys], lr=optim.LR, eps=1e-4)
        steps = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, optim.MAX_EPOCH * len(loader))
        for epoch in range(optim.MAX_EPOCH):
            losses = []
            for batch in loader:
                loss = self.step_loss(batch, keys, values)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps.step()
                losses.append(loss.detach())
            mean = torch.stack(losses).mean().item()
            print(f"epoch [{epoch + 1}/{optim.MAX_EPOCH}] loss {mean:.4f}")
        return keys.detach()

    def step_loss(self, batch: dict[str, Any], keys: Tensor, values: Tensor) -> Tensor:
        """Return the cross-entropy of a training batch, for keys (N, E) and values (N, K)."""
        with torch.no_grad():
            features = F.normalize(self.backbone.encode(batch["img"]).float(), dim=-1)
        cached = cache_logits(features @ keys.T, values, self.settings.BETA)
        logits = self.backbone.classify(features, self.text) + self.settings.ALPHA * cached
        return F.cross_entropy(logits, batch["label"].to(self.device, non_blocking=True))


def cache_logits(affinity: Tensor, values: Tensor, beta: Tensor | float) -> Tensor:
    """Return exp(-beta (1 - z F')) L, (B, K); equation 5 of the paper without alpha.

    The affinity z F' (B, N) is of unit features and keys; the values L (N, K) are one-hot.
    """
    return torch.exp(-beta * (1 - affinity)) @ values


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Return one-hot rows (N, K) in fp32 of labels (N,)."""
    return F.one_hot(labels, n_classes).float()


def search_grid(scale: Sequence[float], step: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return the published grids of beta and alpha: `step` values in [0.1, scale)."""
    betas, alphas = (
        [0.1 + i * (top - 0.1) / count for i in range(count)]
        for top, count in zip(scale, step, strict=True)
    )
    return betas, alphas
