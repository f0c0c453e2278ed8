"""GDA: CLIP's logits plus Gaussian discriminant analysis of its features (arXiv 2402.04087)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.fit import TensorFit
from causalclip.engine.prediction import Prediction, Reading
from causalclip.settings.constraints import integer, list_of, number, one_of
from causalclip.settings.table import PREC, Setting

Gaussians = tuple[Tensor, Tensor]
"""Class means (K, E) and the inverse (E, E) of their common covariance."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedGDA(TensorFit):
    """The Gaussians, their weight, and the features that classes without images borrow.

    Facts: alpha and its validation accuracy in per cent (None where there was no search).
    """

    features: Tensor
    """Unit features (N, E) of all augmented passes."""
    means: Tensor
    """Class means (K, E)."""
    precision: Tensor
    """Inverse covariance (E, E)."""
    alpha: Tensor
    """Weight of the Gaussian logits, a scalar."""


class GDA(FeatureTrainer[FittedGDA]):
    """CLIP's logits + ALPHA (z W' + b), the Gaussian classifier of equal priors.

    W = mu S^-1 and b = log 1/K - mu S^-1 mu' / 2. Nothing is trained. Classes without images get
    Gaussians of the training features nearest to their texts.
    """

    config_node = "GDA"
    fit_class = FittedGDA
    settings_table = {
        "AUGMENT_EPOCHS": Setting(
            10, integer(1, 1000), "Augmented passes over the training images."
        ),
        "COVARIANCE": Setting(
            "pooled",
            one_of(("pooled", "classes")),
            "pooled: a shrunk covariance of all images; classes: the mean over the classes.",
        ),
        "ALPHA": Setting(
            0.1,
            number(0),
            "Weight of the Gaussian classifier, if it is not searched.",
        ),
        "ALPHAS": Setting(
            [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0],
            list_of(number(0), least=0),
            "Weights to search on the validation split; empty: no search.",
        ),
        "NEIGHBOURS": Setting(
            64,
            integer(2, 100_000),
            "Training images to use for a class without images: the nearest to its text.",
        ),
        "TEXT_COPIES": Setting(
            16,
            integer(0, 100_000),
            "Times that the text of a class without images counts in its mean.",
        ),
        "PREC": PREC,
    }

    @property
    def searches(self) -> bool:
        """Whether there are ALPHAS to search."""
        return bool(self.settings.ALPHAS)

    def fit(self) -> FittedGDA:
        """Return the Gaussians of the training images, and their weight chosen in validation."""
        passes = list(self.augmented_passes(self.settings.AUGMENT_EPOCHS))
        features = F.normalize(torch.cat([features for features, _ in passes]), dim=-1)
        labels = torch.cat([labels for _, labels in passes])
        gaussians = class_gaussians(
            features, labels, len(self.classnames), self.settings.COVARIANCE
        )
        alpha, accuracy = self.search(gaussians)
        found = {"alpha": alpha, "validation_accuracy": accuracy}
        print(f"Gaussians of {len(features)} features, {found}")
        means, precision = gaussians
        tensors = {"features": features, "means": means, "precision": precision}
        return FittedGDA(**tensors, alpha=torch.tensor(alpha), facts=found)

    def search(self, gaussians: Gaussians) -> tuple[float, float | None]:
        """Return the best (first of equal) ALPHAS on validation, and its accuracy in per cent."""
        if (validation := self.searched()) is None:
            print("No validation images of its own to search on: alpha stays as configured")
            return self.settings.ALPHA, None
        features, labels = validation
        clip_logits, own = self.both_logits(features, gaussians)
        alphas = self.settings.ALPHAS
        hits = [((clip_logits + a * own).argmax(-1) == labels).sum() for a in alphas]
        counts = torch.stack(hits).tolist()  # read once: each read waits for the device
        return alphas[counts.index(max(counts))], 100 * max(counts) / len(labels)

    # Prediction

    def check_fit(self) -> None:
        """Select the Gaussians of this run's classes, or estimate them from borrowed images.

        If the fit does not know one of the classes, all classes borrow images: the two kinds of
        means have no common covariance.
        """
        fit, known = self.fitted, self.fitted_classnames
        if set(self.classnames) <= set(known):
            rows = [known.index(name) for name in self.classnames]
            self.gaussians = fit.means[rows], fit.precision
            return
        count, copies = min(self.settings.NEIGHBOURS, len(fit.features)), self.settings.TEXT_COPIES
        self.gaussians = borrowed_gaussians(fit.features, self.text, count, copies)

    def both_logits(self, features: Tensor, gaussians: Gaussians) -> tuple[Tensor, Tensor]:
        """Return CLIP's logits and the Gaussians', (B, K) each, of image features (B, E)."""
        unit = F.normalize(features, dim=-1)
        return self.backbone.classify(unit, self.text), gaussian_logits(unit, *gaussians)

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the sum of both logits of image features (B, E)."""
        clip_logits, own = self.both_logits(features, self.gaussians)
        return Prediction(Reading.of_logits(clip_logits + self.fitted.alpha * own))


def gaussian_logits(features: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """Return z W' + b, (B, K), of features z (B, E), for W = mu S^-1 and b of equal priors.

    Means mu are (K, E), the precision S^-1 is (E, E).
    """
    weight = means @ precision
    bias = -(weight * means).sum(-1) / 2 - math.log(len(means))
    return features @ weight.T + bias


def class_gaussians(
    features: Tensor, labels: Tensor, n_classes: int, covariance: str = "pooled"
) -> Gaussians:
    """Return means (K, E) and the precision (E, E) of unit features (N, E) with labels (N,).

    `pooled` shrinks the scatter of all centred features, the paper's few-shot classifier; `classes`
    inverts the mean covariance of the classes, as the published base-to-new code does.

    Raises:
        ValueError: `classes` with a class of fewer than two features.
    """
    groups = [features[labels == k].double() for k in range(n_classes)]
    means = torch.stack([group.mean(0) for group in groups])
    if covariance == "pooled":
        centred = torch.cat([group - mean for group, mean in zip(groups, means, strict=True)])
        precision = shrunk_precision(centred)
    elif (fewest := min(map(len, groups))) < 2:
        raise ValueError(
            "TRAINER.GDA.COVARIANCE classes needs two features a class (shots times "
            f"AUGMENT_EPOCHS), got {fewest}: take pooled"
        )
    else:
        precision = inverse(torch.stack([group.T.cov() for group in groups]).mean(0))
    return means.to(features), precision.to(features)


def borrowed_gaussians(features: Tensor, text: Tensor, count: int, copies: int) -> Gaussians:
    """Return Gaussians of classes that are known by their texts (K, E) alone.

    A class takes the `count` features (N, E) nearest to its text. Its mean is over these and
    `copies` of the text; its scatter is about the text. The precision is the mean over classes.
    """
    means, precisions = [], []
    for own in text.double():
        near = features[(features @ own.to(features)).topk(count).indices].double()
        means.append((near.sum(0) + copies * own) / (count + copies))
        precisions.append(shrunk_precision(near - own))
    return torch.stack(means).to(features), torch.stack(precisions).mean(0).to(features)


def shrunk_precision(centred: Tensor) -> Tensor:
    """Return E ((N - 1) S + tr(S) I)^-1, (E, E), for S = X'X / (N - 1) of centred rows X (N, E)."""
    scatter, width = centred.T @ centred, centred.shape[1]
    trace = scatter.trace() / max(len(centred) - 1, 1)
    return width * inverse(scatter + trace * torch.eye(width).to(scatter))


def inverse(matrix: Tensor) -> Tensor:
    """Return the pseudo-inverse (E, E) of a symmetric matrix, with the cut-off of fp32."""
    cut = len(matrix) * torch.finfo(torch.float32).eps
    return torch.linalg.pinv(matrix, rtol=cut, hermitian=True)
