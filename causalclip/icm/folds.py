"""Folds: the pairs, moments and features of each group of training images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from causalclip.icm.captions import CaptionedImage, caption_pairs, text_pairs
from causalclip.icm.config import ICMConfig
from causalclip.icm.groups import Group, Sample, class_parts, grouped, image_parts
from causalclip.icm.interventions import ImageIntervention, ImageInterventionParams
from causalclip.icm.pairs import (
    Draw,
    EncodeImages,
    EncodeTexts,
    Intervened,
    cross_moments,
    text_moments,
)
from causalclip.icm.subspace import InterventionMoments

PAIRS_A_DIM = 4  # [ours] pairs per feature dimension if DRAWS is 0
LEAST_IMAGES = 20  # for a bootstrap; fewer give resamples of too few different images


@dataclass(frozen=True)
class Fold:
    """Images that are held out together, such as a source domain."""

    name: str
    moments: InterventionMoments | None
    """Moments of the pairs of two images; None without such pairs."""
    texts: InterventionMoments | None
    """Moments of the pairs with a text; the same in every fold if the texts describe no image."""
    features: Tensor
    """Features (N, D) to fit a classifier on while another fold is held out."""
    labels: Tensor
    """Classes (N,) of the images."""
    held_features: Tensor
    """Features (N, D) of the same images to classify when this fold is held out."""
    intervened: Intervened | None = None
    """The image pairs of `moments`, for resampling."""


def pooled(folds: Sequence[Fold], *, text_weight: float = 0.5) -> InterventionMoments:
    """Return the moments of all folds; pairs with a text get `text_weight` of the total weight.

    Raises:
        ValueError: no pairs at all, or a weight outside (0, 1) if there are both kinds of pairs.
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


@dataclass(frozen=True)
class Sources:
    """N training images of the source domains, and the encoders to features of D dimensions."""

    config: ICMConfig
    samples: Sequence[Sample]
    """The N images, with class and domain."""
    domain_names: Sequence[str]
    """Names of the domains, as in `grouped`."""
    classnames: Sequence[str]
    """Names of the classes, as they are written in a caption."""
    encode_images: EncodeImages
    encode_texts: EncodeTexts
    dim: int
    """Number of feature dimensions D."""
    seed: int
    """Seed of the groups and the interventions."""
    twins: Mapping[str, str] | None = None
    """Path of the exact twin of each image, by the image's path; None without twins."""
    captions: Sequence[CaptionedImage] | None = None
    """Captions of images; None: a grid of classes and attributes [ours]."""
    descriptions: Sequence[Sequence[str]] | None = None
    """Descriptions of each class, in place of the grid; any two of a class make a pair [ours]."""

    def check(self) -> None:
        """Raise for settings that do not fit these images or features, before any is encoded.

        Raises:
            ValueError: a fixed `dim_inv` outside [1, D], no twins, fewer image pairs than
                dimensions, a bootstrap of too few images, or held-out classes fewer than two.
        """
        config, n_images, draws = self.config, len(self.samples), self.draws
        if config.select == "fixed" and not 1 <= config.dim_inv <= self.dim:
            raise ValueError(f"`dim_inv` must be in [1, {self.dim}], got {config.dim_inv}")
        if config.twins and self.twins is None:
            raise ValueError("`twins` needs a data set with exact twins (CausalShapes), not this")
        most = self.n_classes // 2
        if config.select_new != "same" and config.class_folds > most:
            raise ValueError(
                f"`class_folds` must hold out two classes or more at a time: {self.n_classes} "
                f"training classes allow at most {most} groups, got {config.class_folds}"
            )
        pairs = n_images * (draws if config.against == "image" else math.comb(draws, 2))
        images_alone = config.interventions == "IMAGE" or (
            config.probe and not config.uses_texts("linear_probe")
        )
        if images_alone and pairs < self.dim:
            raise ValueError(
                f"{n_images} images and {draws} intervention{'s' * (draws > 1)} each give {pairs} "
                f"pairs for {self.dim} dimensions, too few to tell which of them vary: use more "
                "images, `draws` 0, or `interventions` BOTH and `probe_texts` True"
            )
        by_class = config.interventions in ("TEXT", "BOTH") and self.captions is None
        if by_class and self.descriptions and max(map(len, self.descriptions)) < 2:
            raise ValueError("`interventions` of texts need a class with two descriptions or more")
        if config.bootstrap and n_images < LEAST_IMAGES:
            raise ValueError(f"`bootstrap` needs at least {LEAST_IMAGES} images, got {n_images}")

    @property
    def n_classes(self) -> int:
        """Number of classes with a training image."""
        return len({sample.label for sample in self.samples})

    @property
    def draws(self) -> int:
        """Interventions per image."""
        if self.config.twins:
            return 1
        needed = math.ceil(PAIRS_A_DIM * self.dim / len(self.samples))
        return self.config.draws or needed + (self.config.against == "draws")

    @cached_property
    def groups(self) -> list[Group]:
        """The images, in groups that are held out together."""
        if self.config.select == "images":
            return [self.whole]
        names, change = self.domain_names, self.whole.intervention
        return grouped(self.samples, domain_names=names, seed=self.seed, intervention=change)

    @cached_property
    def whole(self) -> Group:
        """All images as one group, which is split into parts to hold out."""
        strengths = ImageInterventionParams().scaled(self.config.strength)
        change = ImageIntervention(strengths, tuple(dict.fromkeys(self.config.kinds)))
        return Group("images", tuple(self.samples), change, held_changed=False)

    def image_sets(self) -> Iterator[tuple[Sequence[str], Draw | None]]:
        """Yield the images that the folds and `exact_moments` need, with their interventions."""
        needs_whole = self.config.select_new != "same" and self.config.select != "images"
        for group in (*self.groups, *([self.whole] if needs_whole else [])):
            yield group.paths, None
            if (self.config.image_pairs or group.held_changed) and not self.config.twins:
                for draw in self._drawn(group):
                    yield group.paths, draw
            if self.twins is not None:
                yield [self.twins[path] for path in group.paths], None

    def changed(self, group: Group) -> list[np.ndarray]:
        """Return features (N, D) of a group's images under interventions, one array per draw."""
        if self.config.twins:
            return [self._twin_features(group)]
        desc = f"{group.name}, intervened"
        return [self.encode_images(group.paths, draw, desc=desc) for draw in self._drawn(group)]

    def _drawn(self, group: Group) -> list[Draw]:
        first = self.seed * self.draws
        return [Draw(group.intervention, first + i) for i in range(self.draws)]

    def folds(self) -> list[Fold]:
        """Return one fold per group, or, if SELECT is images, one per part of the images."""
        if self.config.select == "images":
            return self._parts(image_parts(self.samples, seed=self.seed))
        return [self._fold(group, *self._encoded(group)) for group in self.groups]

    def class_folds(self) -> list[Fold]:
        """Return one fold per group of classes."""
        return self._parts(class_parts(self.samples, self.config.n_class_groups(self.n_classes)))

    def _parts(self, parts: Sequence[Sequence[int]]) -> list[Fold]:
        features, changed = self._encoded(self.whole)
        folds = []
        for number, rows in enumerate(parts, start=1):
            samples = tuple(self.samples[row] for row in rows)
            group = replace(self.whole, name=f"part {number}", samples=samples)
            folds.append(self._fold(group, features[rows], [draw[rows] for draw in changed]))
        return folds

    def exact_moments(self) -> InterventionMoments | None:
        """Return the moments of the images with their exact twins; None without twins."""
        if self.twins is None:
            return None
        exact = InterventionMoments(self.dim, normalize=self.config.normalize)
        for group in self.groups:
            features, twins = self._features(group), [self._twin_features(group)]
            pairs = Intervened(features, twins, group.paths, normalize=self.config.normalize)
            exact.merge(pairs.moments())
        return exact

    def _features(self, group: Group) -> np.ndarray:
        return self.encode_images(group.paths, desc=group.name)

    def _twin_features(self, group: Group) -> np.ndarray:
        assert self.twins is not None, "`check` has raised for a data set without twins"
        paths = [self.twins[path] for path in group.paths]
        return self.encode_images(paths, desc=f"{group.name}, twins")

    def _encoded(self, group: Group) -> tuple[np.ndarray, list[np.ndarray]]:
        needs_changed = self.config.image_pairs or group.held_changed
        return self._features(group), self.changed(group) if needs_changed else []

    def _fold(self, group: Group, features: np.ndarray, changed: list[np.ndarray]) -> Fold:
        config, intervened = self.config, None
        if config.image_pairs:
            options = {"against": config.against, "normalize": config.normalize}
            intervened = Intervened(features, changed, group.paths, **options)
        return Fold(
            group.name,
            moments=intervened.moments() if intervened else None,
            texts=self.text_moments(group, features),
            features=torch.from_numpy(features),
            labels=torch.tensor([sample.label for sample in group.samples]),
            held_features=torch.from_numpy(changed[0] if group.held_changed else features),
            intervened=intervened,
        )

    # Texts

    def text_moments(self, group: Group, features: np.ndarray) -> InterventionMoments | None:
        """Return the moments of a group's pairs with a text; None without such pairs.

        A pair has two captions or, under CROSS and FIGURE, an image and a caption. `features`
        (N, D) are those of the group's images.
        """
        config = self.config
        if config.interventions == "IMAGE":
            return None
        if config.crosses:
            pairs = [(i, text) for i, s in enumerate(group.samples) for text in self._rewrites(s)]
            options = {"normalize": config.normalize, "remove_gap": config.remove_gap}
            return cross_moments(features, pairs, self._encode_once, **options) if pairs else None
        if self.captions is None:
            return self._class_moments
        keys = {sample.key for sample in group.samples}
        pairs = caption_pairs(row for row in self.captions if row.image in keys)
        return text_moments(pairs, self.encode_texts, normalize=config.normalize) if pairs else None

    @cached_property
    def _class_moments(self) -> InterventionMoments:
        if self.descriptions is None:
            pairs = text_pairs(self.classnames)
        else:
            pairs = [pair for own in self.descriptions for pair in permutations(own, 2)]
        return text_moments(pairs, self.encode_texts, normalize=self.config.normalize)

    @cached_property
    def _encode_once(self) -> EncodeTexts:
        # with a grid of classes, every group needs the same captions
        last = lru_cache(maxsize=1)(self.encode_texts)
        return lambda texts: last(tuple(texts))

    def _rewrites(self, sample: Sample) -> Sequence[str]:
        """Return the rewrites of the image's captions or, without captions, its class's texts."""
        if self.captions is None:
            return self._texts_of_class[sample.label]
        return self._rewrites_of_image.get(sample.key, ())

    @cached_property
    def _texts_of_class(self) -> list[list[str]]:
        if self.descriptions is not None:
            return [sorted(set(own)) for own in self.descriptions]
        return [sorted({text for text, _ in text_pairs([name])}) for name in self.classnames]

    @cached_property
    def _rewrites_of_image(self) -> dict[str, list[str]]:
        rewrites: dict[str, list[str]] = {}
        for row in self.captions or ():
            rewrites.setdefault(row.image, []).extend(row.rewrites)
        return rewrites
