"""The training images with the interventions that the options ask for: groups, pairs, folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from causalclip.icm.captions import CaptionedImage
from causalclip.icm.comparison import exact_moments
from causalclip.icm.folds import Fold, fold_of
from causalclip.icm.groups import Group, Sample, grouped
from causalclip.icm.interventions import ImageIntervention, ImageInterventionParams
from causalclip.icm.options import CROSSED, TEXTS_ONLY
from causalclip.icm.pairs import Drawn, EncodeImages, EncodeTexts, Twins, draws_needed
from causalclip.icm.subspace import InterventionMoments
from causalclip.icm.texts import TextPairs


@dataclass(frozen=True)
class Sources:
    """N training images, and how pictures and captions become features of D dimensions."""

    options: Mapping[str, Any]
    """By their names in the settings, see `causalclip.icm.options`."""
    samples: Sequence[Sample]
    """(N,)."""
    domain_names: Sequence[str]
    """As in `grouped`."""
    classnames: Sequence[str]
    encode_images: EncodeImages
    encode_texts: EncodeTexts
    dim: int
    """Number of feature dimensions D."""
    seed: int
    """Of the groups and the interventions."""
    twins: Mapping[str, str] | None = None
    """The path of each image's exact twin, where the data set has them."""

    @property
    def draws(self) -> int:
        """Interventions an image."""
        if self.options["TWINS"]:
            return 1
        needed = draws_needed(len(self.samples), self.dim, self.options["AGAINST"])
        return self.options["DRAWS"] or needed

    @cached_property
    def groups(self) -> list[Group]:
        """The images by what is held out together.

        Raises:
            ValueError: a single domain and a single kind of intervention.
        """
        strengths = ImageInterventionParams().scaled(self.options["STRENGTH"])
        change = ImageIntervention(strengths, tuple(dict.fromkeys(self.options["KINDS"])))
        names = self.domain_names
        return grouped(self.samples, domain_names=names, seed=self.seed, intervention=change)

    @property
    def pairs(self) -> Drawn | Twins:
        """What interventions make of the images."""
        if self.options["TWINS"]:
            return self._exact()
        return Drawn(self.encode_images, self.draws, self.seed)

    def encode_ahead(self) -> None:
        """Have every picture encoded that `folds` and `exact_moments` will ask for."""
        images = self.options["INTERVENTIONS"] not in TEXTS_ONLY
        for group in self.groups:
            self.encode_images(group.paths, desc=group.name)
            if images or group.held_changed:
                self.pairs.changed(group)
            if self.twins is not None:
                self._exact().changed(group)

    def folds(self, captions: Sequence[CaptionedImage] | None = None) -> list[Fold]:
        """One fold a group; `captions` of images stand in the place of the grid of classes.

        Raises:
            ValueError: features or captions that cannot be used; names them.
        """
        images, encode = self.options["INTERVENTIONS"] not in TEXTS_ONLY, self.encode_images
        how = {"against": self.options["AGAINST"], "normalize": self.options["NORMALIZE"]}
        texts = self._texts(captions)
        return [
            fold_of(group, encode, self.pairs, images=images, texts=moments, **how)
            for group, moments in zip(self.groups, texts, strict=True)
        ]

    def exact_moments(self) -> InterventionMoments | None:
        """Moments of the images with their exact twins; None where the data set has no twins.

        Raises:
            ValueError: features that are NaN, infinite, or zero where they are to be normalised.
        """
        if self.twins is None:
            return None
        how = {"dim": self.dim, "normalize": self.options["NORMALIZE"]}
        return exact_moments(self.groups, self.encode_images, self._exact(), **how)

    def _exact(self) -> Twins:
        assert self.twins is not None, "TWINS without twins is refused before"
        return Twins(self.encode_images, self.twins)

    def _texts(self, captions: Sequence[CaptionedImage] | None) -> list[InterventionMoments | None]:
        """Moments of each group's text pairs: its own images' captions, or about the classes."""
        kind = self.options["INTERVENTIONS"]
        if kind == "IMAGE":
            return [None] * len(self.groups)
        texts = TextPairs(
            "image" if kind in CROSSED else "caption",
            self.classnames,
            captions,
            encode_images=self.encode_images,
            encode_texts=self.encode_texts,
            normalize=self.options["NORMALIZE"],
            remove_gap=self.options["REMOVE_GAP"],
        )
        return [texts.moments(group) for group in self.groups]
