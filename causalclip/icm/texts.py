"""Which texts a group of images is paired with: about its classes, or of its own images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from causalclip.icm.captions import CaptionedImage, caption_pairs, text_pairs
from causalclip.icm.groups import Group
from causalclip.icm.pairs import EncodeImages, EncodeTexts, cross_moments, text_moments
from causalclip.icm.subspace import InterventionMoments

Before = Literal["caption", "image"]
"""What a rewritten caption is compared with: its caption, or the image itself."""


@dataclass(frozen=True)
class TextPairs:
    """Pairs of a rewritten caption and what it rewrites; without captions, a grid of classes."""

    before: Before
    classnames: Sequence[str]
    captions: Sequence[CaptionedImage] | None
    """Of images; None takes the grid of classes and attributes [ours]."""
    encode_images: EncodeImages
    encode_texts: EncodeTexts
    normalize: bool = True
    """As in `InterventionMoments`."""
    remove_gap: bool = False
    """Take the mean difference between images and texts out, as in `cross_moments`."""

    def moments(self, group: Group) -> InterventionMoments | None:
        """Moments of the group's text pairs, or None where no caption is of its images.

        Raises:
            ValueError: features that are NaN, infinite, or zero where they are to be normalised.
        """
        if self.before == "image":
            return self._across(group)
        if self.captions is None:
            return self._about_classes
        rows = group.captioned(self.captions)
        return self._among_texts(caption_pairs(rows)) if rows else None

    @cached_property
    def _about_classes(self) -> InterventionMoments:
        return self._among_texts(text_pairs(self.classnames))

    def _among_texts(self, pairs: Sequence[tuple[str, str]]) -> InterventionMoments:
        return text_moments(pairs, self.encode_texts, normalize=self.normalize)

    def _across(self, group: Group) -> InterventionMoments | None:
        pairs = [
            (row, text)
            for row, sample in enumerate(group.samples)
            for text in self._rewrites(sample.key, sample.label)
        ]
        if not pairs:
            return None
        options = {"normalize": self.normalize, "remove_gap": self.remove_gap}
        features = self.encode_images(group.paths, desc=group.name)
        return cross_moments(features, pairs, self._encode_again, **options)

    @cached_property
    def _encode_again(self) -> EncodeTexts:
        """`encode_texts`, once where every group asks for the same: a grid of classes."""
        last = lru_cache(maxsize=1)(self.encode_texts)
        return lambda texts: last(tuple(texts))

    def _rewrites(self, key: str, label: int) -> Sequence[str]:
        """The texts an image goes by: its own rewrites, or its class with every attribute."""
        if self.captions is None:
            return self._of_class[label]
        return self._of_image.get(key, ())

    @cached_property
    def _of_class(self) -> list[list[str]]:
        return [sorted({text for text, _ in text_pairs([name])}) for name in self.classnames]

    @cached_property
    def _of_image(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.captions or ():
            found.setdefault(row.image, []).extend(row.rewrites)
        return found
