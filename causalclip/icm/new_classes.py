"""Classes that CLIP-ICM's fit has not seen: how their subspace is chosen and combined [ours]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalclip.icm.folds import Fold
from causalclip.icm.projection import InvariantProjection
from causalclip.icm.selection import Classifier


def new_class_classifier(text_features: Tensor, *, normalize: bool = True) -> Classifier:
    """Classify by the cosine in the subspace among the classes that no other fold has.

    `text_features` are of all classes (K, D); `normalize` is as in `zeroshot_classifier`.
    """

    def classify(projection: InvariantProjection, rest: Sequence[Fold], features: Tensor) -> Tensor:
        logits = projection.cosine_logits(features, text_features, 1.0, normalize=normalize)
        seen = torch.cat([fold.labels for fold in rest]).unique()
        return logits.index_fill(-1, seen, -torch.inf).argmax(-1)

    return classify


def joined_logits(plain: Tensor, known: Tensor, new: Tensor, is_new: Tensor) -> Tensor:
    """Return log-probabilities (B, K) of known and new classes together, by the chain rule.

        log p(k | x) = log p(group of k | x) + log p(k | group of k, x)

    The first term is of the `plain` logits (B, K), the second of the `known` logits for known
    classes and of the `new` logits where `is_new` (K,).
    """
    joined = plain.log_softmax(-1)
    for logits, group in ((known, ~is_new), (new, is_new)):
        if group.any():
            mass = joined[:, group].logsumexp(-1, keepdim=True)
            joined[:, group] = mass + logits[:, group].log_softmax(-1)
    return joined
