"""Moments of interventional pairs: of images, of captions, and of both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from causalclip.icm.config import Against
from causalclip.icm.interventions import ImageIntervention
from causalclip.icm.subspace import InterventionMoments, unit
from causalclip.seeding import sample_seed

ROWS_AT_ONCE = 4096  # bounds the memory of many pairs; no effect on the result


@dataclass(frozen=True)
class Draw:
    """One intervention per image, drawn by `seed` and the image's key."""

    intervention: ImageIntervention
    seed: int

    def __call__(self, image: Image.Image, key: str) -> Image.Image:
        """Return the changed picture of the image with this key."""
        return self.intervention(image, sample_seed(key, self.seed))


class EncodeImages(Protocol):
    """Encodes image files; if `change` is given, it is applied to each image first."""

    def __call__(
        self, paths: Sequence[str], change: Draw | None = None, *, desc: str = ...
    ) -> np.ndarray:
        """Return features (N, D) in fp32 of N files; `desc` labels the progress bar."""
        ...


EncodeTexts = Callable[[Sequence[str]], Tensor]
"""Function that encodes N captions to features (N, D)."""


@dataclass(frozen=True)
class Intervened:
    """Features of N images and of interventions on them."""

    features: np.ndarray
    """Features (N, D) of the original images; may be memory-mapped."""
    changed: Sequence[np.ndarray]
    """Features (N, D) of the same images under interventions, one array per draw."""
    names: Sequence[str]
    """Names (N,) of the images, for error messages."""
    against: Against = "image"
    """Compare a draw with the original image, or with other draws of the same image."""
    normalize: bool = True
    """As in `InterventionMoments`."""

    def moments(self, rows: np.ndarray | None = None) -> InterventionMoments:
        """Return the moments of the pairs of all images, or of the images (R,) in `rows`.

        Raises:
            ValueError: features that are NaN, infinite, or zero where they are to be normalised.
        """
        features, changed, names = self.features, self.changed, self.names
        if rows is not None:
            features, changed = features[rows], [array[rows] for array in changed]
            names = [names[int(row)] for row in rows]
        moments = InterventionMoments(features.shape[1], normalize=self.normalize)
        z, draws = torch.from_numpy(features), [torch.from_numpy(array) for array in changed]
        if self.against == "image":
            for draw in draws:
                moments.update(z, draw, names=names)
            return moments
        for start in range(0, len(z), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            scaled = [unit(draw[part]) if self.normalize else draw[part].double() for draw in draws]
            # every two draws of an image; E[zz'] is of the original images
            for one, other in itertools.combinations(scaled, 2):
                moments.update_changes(z[part], one - other, names=names[part])
        return moments


def cross_moments(
    features: np.ndarray,
    pairs: Sequence[tuple[int, str]],
    encode: EncodeTexts,
    *,
    normalize: bool = True,
    remove_gap: bool = False,
) -> InterventionMoments:
    """Return the moments of image-text pairs: d = z_image - t, and E[zz'] of the images only.

    The published figure pairs an image with the rewrites of its caption. An image and a text also
    differ by the modality gap, which `remove_gap` subtracts as the mean of d [ours].

    A pair is the row of an image in `features` (N, D) and a caption. Each caption is encoded once.
    `normalize` is as in `InterventionMoments`.
    """
    captions = sorted({caption for _, caption in pairs})
    place = {caption: i for i, caption in enumerate(captions)}
    texts, images = encode(captions).double(), torch.from_numpy(features)
    texts = unit(texts) if normalize else texts
    rows = torch.tensor([row for row, _ in pairs]).split(ROWS_AT_ONCE)
    columns = torch.tensor([place[caption] for _, caption in pairs]).split(ROWS_AT_ONCE)
    blocks = list(zip(rows, columns, strict=True))

    def changes(i: Tensor, j: Tensor) -> Tensor:
        z = images[i].double()
        return (unit(z) if normalize else z) - texts[j]

    gap = torch.zeros(features.shape[1], dtype=torch.float64)
    if remove_gap:
        gap = sum(changes(i, j).sum(0) for i, j in blocks) / len(pairs)
    moments = InterventionMoments(features.shape[1], normalize=normalize)
    for i, j in blocks:
        moments.update_changes(images[i], changes(i, j) - gap, names=[captions[k] for k in j])
    return moments


def text_moments(
    pairs: Sequence[tuple[str, str]], encode: EncodeTexts, *, normalize: bool = True
) -> InterventionMoments:
    """Return the moments of caption pairs; each caption is encoded once."""
    captions = sorted({caption for pair in pairs for caption in pair})
    place = {caption: i for i, caption in enumerate(captions)}
    features = encode(captions)
    before, after = (torch.tensor([place[pair[side]] for pair in pairs]) for side in (0, 1))
    moments = InterventionMoments(features.shape[1], normalize=normalize)
    for b, a in zip(before.split(ROWS_AT_ONCE), after.split(ROWS_AT_ONCE), strict=True):
        moments.update(features[b], features[a], names=[captions[i] for i in b])
    return moments
