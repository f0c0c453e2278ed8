"""Interventional pairs of images, of exact twins and of captions, and their moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from causalclip.icm.groups import Group
from causalclip.icm.interventions import ImageIntervention, sample_seed
from causalclip.icm.subspace import InterventionMoments

PAIRS_A_DIM = 4  # [ours] pairs a feature dimension where the number of draws is left to us
TEXTS_AT_ONCE = 4096  # bounds the memory of a large grid of captions; no effect on the result


@dataclass(frozen=True)
class Draw:
    """One intervention an image, from the image's own seed: the same for any number of workers."""

    intervention: ImageIntervention
    seed: int

    def __call__(self, image: Image.Image, key: str) -> Image.Image:
        """Return the changed picture of the image that goes by `key`."""
        return self.intervention(image, sample_seed(key, self.seed))


class EncodeImages(Protocol):
    """Gives features (N, D) in fp32 of N image files, each picture changed first where asked."""

    def __call__(
        self, paths: Sequence[str], change: Draw | None = None, *, desc: str = ...
    ) -> np.ndarray:
        """Encode the files; `desc` names the work to whoever watches."""
        ...


EncodeTexts = Callable[[Sequence[str]], Tensor]
"""Gives features (N, D) of N captions."""


class ImagePairs(Protocol):
    """Says what interventions make of a group's images."""

    def changed(self, group: Group) -> list[np.ndarray]:
        """Features (N, D) of the group's N images under an intervention; one array each draw."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Pairs of an image and of `draws` interventions on it, all from its own seed."""

    encode: EncodeImages
    draws: int
    seed: int

    def changed(self, group: Group) -> list[np.ndarray]:
        """Features (N, D) of the group's N images under an intervention; one array each draw."""
        first = self.seed * self.draws
        return [
            self.encode(
                group.paths, Draw(group.intervention, first + i), desc=f"{group.name}, intervened"
            )
            for i in range(self.draws)
        ]


@dataclass(frozen=True)
class Twins:
    """Pairs of an image and its exact interventional twin, by path."""

    encode: EncodeImages
    twins: Mapping[str, str]

    def changed(self, group: Group) -> list[np.ndarray]:
        """Features (N, D) of the group's N twins, in a list of one."""
        paths = [self.twins[path] for path in group.paths]
        return [self.encode(paths, desc=f"{group.name}, twins")]


def draws_needed(n_images: int, dim: int) -> int:
    """Interventions an image that give `PAIRS_A_DIM` pairs for each of `dim` dimensions."""
    return math.ceil(PAIRS_A_DIM * dim / n_images)


def image_moments(
    features: np.ndarray,
    changed: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    normalize: bool = True,
) -> InterventionMoments:
    """Moments of images with each of their draws.

    Args:
        features: (N, D) of the images as they are; may be mapped from disk.
        changed: (N, D) of the same images, one array a draw.
        names: (N,) quoted where features are unusable.
        normalize: as in `InterventionMoments`.

    Raises:
        ValueError: features that are NaN, infinite, or zero where they are to be normalised.
    """
    moments = InterventionMoments(features.shape[1], normalize=normalize)
    z = torch.from_numpy(features)
    for array in changed:
        moments.update(z, torch.from_numpy(array), names=names)
    return moments


def text_moments(
    pairs: Sequence[tuple[str, str]], encode: EncodeTexts, *, normalize: bool = True
) -> InterventionMoments:
    """Moments of caption pairs; each caption is encoded once.

    Raises:
        ValueError: features that are NaN, infinite, or zero where they are to be normalised.
    """
    captions = sorted({caption for pair in pairs for caption in pair})
    place = {caption: i for i, caption in enumerate(captions)}
    features = encode(captions)
    before, after = (torch.tensor([place[pair[side]] for pair in pairs]) for side in (0, 1))
    moments = InterventionMoments(features.shape[1], normalize=normalize)
    for b, a in zip(before.split(TEXTS_AT_ONCE), after.split(TEXTS_AT_ONCE), strict=True):
        moments.update(features[b], features[a], names=[captions[i] for i in b])
    return moments
