"""What a group of training images contributes to the subspace and to its choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from causalclip.icm.groups import Group
from causalclip.icm.pairs import Against, EncodeImages, ImagePairs, Intervened
from causalclip.icm.subspace import InterventionMoments


@dataclass(frozen=True)
class Fold:
    """What one source domain (or one kind of intervention) contributes."""

    name: str
    moments: InterventionMoments | None
    """Of this fold's image pairs; None where only text pairs are used."""
    texts: InterventionMoments | None
    """Of its text pairs; every fold may share those that are about no image."""
    features: Tensor
    """Features (N, D) that a classifier may be fitted on while another fold is held out."""
    labels: Tensor
    """Their classes (N,)."""
    held_features: Tensor
    """Features (H, D) that are classified when this fold is held out."""
    held_labels: Tensor
    """Their classes (H,)."""
    intervened: Intervened | None = None
    """What `moments` were taken of, to take them again of other images."""


def fold_of(
    group: Group,
    encode: EncodeImages,
    pairs: ImagePairs,
    *,
    images: bool = True,
    against: Against = "image",
    texts: InterventionMoments | None = None,
    normalize: bool = True,
) -> Fold:
    """Encode a group's images and their pairs, which are not encoded where nobody reads them.

    Args:
        group: the N images.
        encode: gives their features (N, D).
        pairs: what interventions make of them.
        images: take the moments of these pairs; False where only texts count.
        against: what an intervention is compared with.
        texts: the moments of the group's text pairs.
        normalize: as in `InterventionMoments`.

    Raises:
        ValueError: features that are NaN, infinite, or zero where they are to be normalised.
    """
    features, labels = encode(group.paths, desc=group.name), torch.tensor(group.labels)
    changed = pairs.changed(group) if images or group.held_changed else []
    held = changed[0] if group.held_changed else features
    intervened = None
    if images:
        intervened = Intervened(features, changed, group.paths, against, normalize)
    return Fold(
        group.name,
        moments=intervened.moments() if intervened else None,
        texts=texts,
        features=torch.from_numpy(features),
        labels=labels,
        held_features=torch.from_numpy(held),
        held_labels=labels,
        intervened=intervened,
    )


def pooled(folds: Sequence[Fold], *, text_weight: float = 0.5) -> InterventionMoments:
    """The moments of all folds together, their text pairs weighing `text_weight` in all.

    Raises:
        ValueError: no pairs at all, or a weight outside (0, 1) where both kinds are there.
    """
    images = _sum([fold.moments for fold in folds if fold.moments is not None])
    texts = _sum([fold.texts for fold in folds if fold.texts is not None])
    if texts is None:
        if images is None:
            raise ValueError("folds must hold image or text pairs, got neither")
        return images
    if images is None:
        return texts
    if not 0 < text_weight < 1:
        raise ValueError(f"text_weight must be in (0, 1), got {text_weight}")
    return images.reweighted(1 - text_weight) + texts.reweighted(text_weight)


def _sum(moments: Sequence[InterventionMoments]) -> InterventionMoments | None:
    return sum(moments[1:], start=moments[0]) if moments else None
