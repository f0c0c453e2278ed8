"""Tip-Adapter and Tip-Adapter-F: CLIP plus a cache of the few-shot features (arXiv 2111.03930)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from dassl.data.data_manager import build_data_loader
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from causalclip.clip.templates import IMAGENET_TEMPLATES_SELECT
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template, given_template
from causalclip.engine.features import FeatureTrainer
from causalclip.engine.loading import training_loader
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.settings import ListOf, Number, Whole


@dataclass(frozen=True, eq=False)
class FittedCache:
    """The cache of few-shot features with its strengths, and how good these were."""

    keys: Tensor
    """F (N, E), unit rows."""
    labels: Tensor
    """(N,)."""
    alpha: Tensor
    """Residual ratio, a scalar."""
    beta: Tensor
    """Sharpness, a scalar."""
    facts: Mapping[str, Any]
    """alpha, beta and their validation accuracy in per cent (None where there was no search)."""

    def state(self) -> dict[str, Tensor]:
        """What was learned, by name."""
        return {name: getattr(self, name) for name in ("keys", "labels", "alpha", "beta")}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> FittedCache:
        """The fit that `state` and `facts` were taken of: keys (N, D), labels (N,).

        Raises:
            KeyError: a tensor is missing.
        """
        return cls(tensors["keys"], tensors["labels"], tensors["alpha"], tensors["beta"], facts)

    def logits(self, features: Tensor, n_classes: int) -> Tensor:
        """Alpha times `cache_logits` (B, K) of unit features (B, E), for K = `n_classes`."""
        values = one_hot(self.labels, n_classes)
        return self.alpha * cache_logits(features, self.keys, values, self.beta)


class TipAdapter(FeatureTrainer[FittedCache]):
    """scale z T' + alpha exp(-beta (1 - z F')) L over cached features F and one-hot labels L.

    Nothing is trained. F averages AUGMENT_EPOCHS augmented passes; alpha and beta are searched on
    the validation split, never on the test set (the published code does so on ImageNet).
    """

    config_node = "TIPADAPTER"
    knows_other_classes = False
    fit_class = FittedCache
    defaults = {
        "AUGMENT_EPOCHS": 10,
        "ALPHA": 1.17,  # residual ratio, and
        "BETA": 1.0,  # sharpness: the published start, kept where there is nothing to search on
        "SEARCH_SCALE": [7.0, 3.0],  # largest beta and alpha tried, from 0.1
        "SEARCH_STEP": [200, 20],  # values of each; an empty list: no search
        "PREC": "fp32",
    }
    constraints = {
        "AUGMENT_EPOCHS": Whole(1, 1000),
        "ALPHA": Number(0),
        "BETA": Number(0),
        "SEARCH_SCALE": ListOf(Number(0.1, open_low=True)),
        "SEARCH_STEP": ListOf(Whole(1, 10_000), least=0),
    }

    def check_cfg(self, cfg: CfgNode) -> None:
        """As in CLIPTrainer, and that the search has two ends and two numbers of values, or none.

        Raises:
            ValueError: names the key, what is allowed and what came.
        """
        super().check_cfg(cfg)
        node = cfg.TRAINER[self.config_node]
        for key, lengths in (("SEARCH_SCALE", (2,)), ("SEARCH_STEP", (0, 2))):
            if len(node[key]) not in lengths:
                allowed = " or ".join(map(str, lengths))
                raise ValueError(
                    f"TRAINER.{self.config_node}.{key} must hold {allowed} numbers, of beta and of "
                    f"alpha, got {node[key]}"
                )

    def build_method(self) -> None:
        """Encode the class names in the data set's template, or in ImageNet's seven."""
        super().build_method()
        published = self.cfg.DATASET.NAME == "ImageNet" and not given_template(self.cfg)
        templates = IMAGENET_TEMPLATES_SELECT if published else [dataset_template(self.cfg)]
        self.text = class_features(self.clip, self.classnames, templates)

    # Fitting

    def encode_ahead(self) -> None:
        """As in CLIPTrainer; the validation split too, but no augmented training image."""
        super().encode_ahead()
        if self.settings.SEARCH_STEP and self.dm.dataset.val:
            self.features(self.dm.dataset.val, desc="val")

    def fit(self) -> FittedCache:
        """The cache, with the strengths that the validation split asks for."""
        keys, labels = self.cache()
        alpha, beta, accuracy = self.search(keys, labels)
        found = {"alpha": alpha, "beta": beta, "validation_accuracy": accuracy}
        print(f"Cache of {len(keys)} images, {found}")
        return FittedCache(keys, labels, torch.tensor(alpha), torch.tensor(beta), found)

    @torch.no_grad()
    def cache(self) -> tuple[Tensor, Tensor]:
        """Keys (N, E), normalised mean features over augmented passes, and labels (N,)."""
        loader = build_data_loader(
            self.cfg,
            sampler_type="SequentialSampler",
            data_source=self.dm.dataset.train_x,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=self.train_loader_x.dataset.transform,
            is_train=False,
        )
        loader = training_loader(loader, self.cfg, epochs=self.settings.AUGMENT_EPOCHS)
        total, labels = self._seen(loader)
        for _ in range(self.settings.AUGMENT_EPOCHS - 1):
            total = total + self._seen(loader)[0]
        return F.normalize(total, dim=-1), labels

    def _seen(self, loader: Iterable) -> tuple[Tensor, Tensor]:
        """Features (N, E) and labels (N,) of one pass."""
        seen = [(self._encode(b["img"]).float(), b["label"].to(self.device)) for b in loader]
        return torch.cat([features for features, _ in seen]), torch.cat(
            [label for _, label in seen]
        )

    @torch.no_grad()
    def search(self, keys: Tensor, labels: Tensor) -> tuple[float, float, float | None]:
        """alpha, beta and their accuracy in per cent: the first best pair on the validation split.

        Args:
            keys: (N, E), unit rows.
            labels: (N,).
        """
        start = self.settings.ALPHA, self.settings.BETA, None
        dataset = self.dm.dataset
        if not self.settings.SEARCH_STEP or not dataset.val or dataset.val is dataset.test:
            print("No validation images of its own to search on: alpha and beta stay as configured")
            return start
        features, targets = self.labelled(dataset.val, desc="val")
        features, targets = F.normalize(features.to(self.device), dim=-1), targets.to(self.device)
        clip_logits = self.classify(features, self.text)
        betas, alphas = search_grid(self.settings.SEARCH_SCALE, self.settings.SEARCH_STEP)
        best = (-1.0, *start[:2])
        for beta in betas:
            cached = cache_logits(features, keys, one_hot(labels, len(self.text)), beta)
            for alpha in alphas:
                hits = (clip_logits + alpha * cached).argmax(-1) == targets
                best = max(best, (hits.float().mean().item(), alpha, beta), key=lambda b: b[0])
        return best[1], best[2], 100 * best[0]

    # Prediction

    def check_fit(self) -> None:
        """The cache's labels are of the classes of the fit.

        Raises:
            ValueError: this run has others.
        """
        self.require_same_classes()

    def predict_features(self, features: Tensor) -> Prediction:
        """CLIP's logits and the cache's, of image features (B, E)."""
        features = F.normalize(features, dim=-1)
        cached = self.fitted.logits(features, len(self.text))
        return Prediction(Reading.of_logits(self.classify(features, self.text) + cached))


class TipAdapterF(TipAdapter):
    """The cache's keys fine-tuned by AdamW; OPTIM gives LR and MAX_EPOCH.

    The last epoch counts; the published code keeps the one that is best on the test set.
    """

    config_node = "TIPADAPTERF"

    def cache(self) -> tuple[Tensor, Tensor]:
        """Keys (N, E) after fine-tuning, and labels (N,)."""
        keys, labels = super().cache()
        return self.fine_tuned(keys, labels), labels

    def fine_tuned(self, keys: Tensor, labels: Tensor) -> Tensor:
        """Keys (N, E) after MAX_EPOCH epochs under the configured alpha and beta.

        Args:
            keys: (N, E) to start from, left as they are.
            labels: (N,).
        """
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
                losses.append(loss.item())
            print(f"epoch [{epoch + 1}/{optim.MAX_EPOCH}] loss {sum(losses) / len(losses):.4f}")
        return keys.detach()

    def step_loss(self, batch: dict[str, Any], keys: Tensor, values: Tensor) -> Tensor:
        """Cross-entropy of one training batch, under keys (N, E) and one-hot values (N, K)."""
        with torch.no_grad():
            features = F.normalize(self._encode(batch["img"]).float(), dim=-1)
        cached = cache_logits(features, keys, values, self.settings.BETA)
        logits = self.classify(features, self.text) + self.settings.ALPHA * cached
        return F.cross_entropy(logits, batch["label"].to(self.device))


def cache_logits(features: Tensor, keys: Tensor, values: Tensor, beta: Tensor | float) -> Tensor:
    """Return exp(-beta (1 - z F')) L, (B, K); equation 5 of the paper without alpha.

    Args:
        features: z (B, E), unit rows.
        keys: F (N, E), unit rows.
        values: L (N, K), one-hot.
        beta: sharpness.
    """
    return torch.exp(-beta * (1 - features @ keys.T)) @ values


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """One-hot rows (N, K) in fp32 of labels (N,)."""
    return F.one_hot(labels, n_classes).float()


def search_grid(scale: Sequence[float], step: Sequence[int]) -> tuple[list[float], list[float]]:
    """The published grids of beta and alpha: step values from 0.1 up to, not including, scale."""
    betas, alphas = (
        [0.1 + i * (top - 0.1) / count for i in range(count)]
        for top, count in zip(scale, step, strict=True)
    )
    return betas, alphas
