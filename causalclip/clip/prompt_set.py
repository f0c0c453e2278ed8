"""Prompts of both towers as one set, and the features of texts and images under one set or M."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from causalclip.clip.additions import NOTHING, Additions
from causalclip.clip.encode import encode_image, encode_image_twice, encode_texts
from causalclip.clip.model import CLIPModel
from causalclip.clip.texts import ClassTokens


@dataclass(frozen=True)
class PromptSet:
    """Prompts of both towers, one tensor per depth; (n, D), with a leading M, B or K axis or none.

    None at a depth of the text leaves it as it is. See `causalclip.clip.injection.prompted` for
    what each depth does, and what the blocks of a tower can get besides.
    """

    text: tuple[Tensor | None, ...] = ()
    image: tuple[Tensor, ...] = ()
    text_additions: Additions = NOTHING
    image_additions: Additions = NOTHING

    @property
    def touches_image_tower(self) -> bool:
        """Whether the image tower holds anything of it."""
        return bool(self.image or self.image_additions)


def encode_classes(model: CLIPModel, texts: ClassTokens, prompts: PromptSet) -> Tensor:
    """Return the text features (K, E) of all classes under one prompt set, not normalised.

    Text prompts are (n, D), or (K, n, D) for class-specific ones.

    Raises:
        ValueError: contexts that belong to another number of classes.
    """
    one_set = [depth if depth is None else depth.unsqueeze(0) for depth in prompts.text]
    return encode_texts(model, texts, one_set, prompts.text_additions)[0]


def encode_text_sets(model: CLIPModel, texts: ClassTokens, prompts: PromptSet) -> Tensor:
    """Return the text features (M, K, E) of all classes under M prompt sets, not normalised.

    The M sets are templates (CDC) or images (CoCoOp); each text prompt is (M, n, D), or
    (M, K, n, D) for class-specific contexts. Their image prompts are not used here.

    Raises:
        ValueError: prompts without one leading axis, or contexts of another number of classes.
    """
    sets = _count_sets(prompts)
    return encode_texts(model, texts, prompts.text).expand(sets, -1, -1)


def encode_image_sets(model: CLIPModel, images: Tensor, prompts: PromptSet) -> Tensor:
    """Return the image features (B, M, E) under M prompt sets, not normalised.

    One forward of B * M images, in the order b * M + m.

    Args:
        model: the CLIP.
        images: (B, M, 3, R, R), a view of its own for each set, or (B, 3, R, R), the same for all;
            without image prompts the latter are encoded once.
        prompts: the M sets.

    Raises:
        ValueError: other views than sets.
    """
    sets = _count_sets(prompts)
    if images.dim() == 4 and not prompts.image:
        return encode_image(model, images).unsqueeze(1).expand(-1, sets, -1)
    views, tiled = _tiled(images, prompts, sets)
    return encode_image(model, views, tiled).unflatten(0, (-1, sets))


def encode_image_sets_twice(
    model: CLIPModel, views: Tensor, prompts: PromptSet
) -> tuple[Tensor, Tensor]:
    """Return `encode_image_sets` of views, and without a graph what they are without prompts.

    Args:
        model: the CLIP.
        views: (B, M, 3, R, R), one for each set.
        prompts: the M sets.

    Returns:
        Features (B, M, E) under the sets, and of the same views in the tower as it is; neither
        normalised.

    Raises:
        ValueError: other views than sets.
    """
    sets = _count_sets(prompts)
    both = encode_image_twice(model, *_tiled(views, prompts, sets))
    prompted, plain = (features.unflatten(0, (-1, sets)) for features in both)
    return prompted, plain


def _tiled(images: Tensor, prompts: PromptSet, sets: int) -> tuple[Tensor, list[Tensor]]:
    """B * M images, in the order b * M + m, and image prompts (B * M, n, D) for each depth."""
    if images.dim() == 5 and images.shape[1] != sets:
        raise ValueError(f"images must have {sets} views, one per template, got {images.shape[1]}")
    if images.dim() == 4:
        images = images.unsqueeze(1).expand(-1, sets, -1, -1, -1)
    batch = len(images)
    tiled = [depth.expand(batch, *depth.shape).flatten(0, 1) for depth in prompts.image]
    return images.flatten(0, 1), tiled


def _count_sets(prompts: PromptSet) -> int:
    given = [depth for depth in (*prompts.text, *prompts.image) if depth is not None]
    sets = {len(depth) if depth.dim() > 2 else 0 for depth in given}
    if len(sets) != 1 or sets == {0}:
        raise ValueError("prompts must have one leading axis of M sets in every tensor")
    return sets.pop()
