"""Interventional pairs of images, of exact twins and of captions, and their moments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from causalclip.icm.groups import Group
from causalclip.icm.interventions import ImageIntervention, sample_seed
from causalclip.icm.subspace import InterventionMoments, unit

PAIRS_A_DIM = 4  # [ours] pairs a feature dimension where the number of draws is left to us
TEXTS_AT_ONCE = 4096  # bounds the memory of a large grid of captions; no effect on the result
ROWS_AT_ONCE = 4096  # the same for pairs whose changes are taken one by one


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


Against = Literal["image", "draws"]
"""What an intervention is compared with: the image as it is, or the image's other interventions."""


def draws_needed(n_images: int, dim: int, against: Against = "image") -> int:
    """Interventions an image that give `PAIRS_A_DIM` pairs for each of `dim` dimensions."""
    draws = math.ceil(PAIRS_A_DIM * dim / n_images)
    return draws if against == "image" else draws + 1


def pairs_an_image(draws: int, against: Against = "image") -> int:
    """How many pairs so many interventions of an image are."""
    return draws if against == "image" else math.comb(draws, 2)


@dataclass(frozen=True)
class Intervened:
    """Features of N images and of interventions on them, of which any rows give moments."""

    features: np.ndarray
    """(N, D) of the images as they are; may be mapped from disk."""
    changed: Sequence[np.ndarray]
    """(N, D) of the same images, one array a draw."""
    names: Sequence[str]
    """(N,) quoted where features are unusable."""
    against: Against = "image"
    normalize: bool = True
    """As in `InterventionMoments`."""

    def moments(self, rows: np.ndarray | None = None) -> InterventionMoments:
        """Moments of the pairs of all images, or of the images (R,) that `rows` names.

        Raises:
            ValueError: as `image_moments` and `draw_moments`.
        """
        features, changed = self.features, self.changed
        names: Sequence[str] = self.names
        if rows is not None:
            features, changed = features[rows], [array[rows] for array in changed]
            names = [names[int(row)] for row in rows]
        moments_of = image_moments if self.against == "image" else draw_moments
        return moments_of(features, changed, names, normalize=self.normalize)


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


def draw_moments(
    features: np.ndarray,
    changed: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    normalize: bool = True,
) -> InterventionMoments:
    """Moments of every two draws of an image; E[zz'] is of the images as they are.

    Arguments as in `image_moments`.

    Raises:
        ValueError: fewer than two draws, or features that are NaN, infinite, or zero where they are
            to be normalised.
    """
    if len(changed) < 2:
        raise ValueError(f"pairs of draws need two draws an image or more, got {len(changed)}")
    moments = InterventionMoments(features.shape[1], normalize=normalize)
    for start in range(0, len(features), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        draws = [torch.from_numpy(array[part]).double() for array in changed]
        draws = [unit(draw) if normalize else draw for draw in draws]
        z = torch.from_numpy(features[part])
        for one, other in itertools.combinations(draws, 2):
            moments.update_changes(z, one - other, names=names[part])
    return moments


def cross_moments(
    features: np.ndarray,
    pairs: Sequence[tuple[int, str]],
    encode: EncodeTexts,
    *,
    normalize: bool = True,
    remove_gap: bool = False,
) -> InterventionMoments:
    """Moments of images against texts: d = z_image - t, where E[zz'] is of the images alone.

    The published figure holds an image together with the rewrites of its caption. An image and a
    text also differ by which of the two they are: the modality gap, which `remove_gap` takes out as
    the mean of d [ours].

    Args:
        features: (N, D) of the images.
        pairs: (image, caption) by the image's row in `features`.
        encode: gives the captions' features; each caption is encoded once.
        normalize: as in `InterventionMoments`.
        remove_gap: subtract the mean change from every change.

    Raises:
        ValueError: features that are NaN, infinite, or zero where they are to be normalised.
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
