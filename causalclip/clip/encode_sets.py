"""Features of texts and images under M prompt sets: templates (CDC) or images (CoCoOp)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from causalclip.clip.encode import encode_image, encode_image_twice, encode_texts
from causalclip.clip.interface import run_with
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompt_set import IMAGE_PROJECTION, PromptSet
from causalclip.clip.texts import ClassTokens

T = TypeVar("T")


def encode_text_sets(model: CLIPModel, texts: ClassTokens, prompts: PromptSet) -> Tensor:
    """Return the text features (M, K, E) of all classes under M prompt sets.

    The M sets are templates (CDC) or images (CoCoOp); each text prompt is (M, n, D), or
    (M, K, n, D) for class-specific contexts. Image prompts are not used.
    """
    sets = _count_sets(prompts)
    return encode_texts(model, texts, prompts.text).expand(sets, -1, -1)


def encode_image_sets(model: CLIPModel, images: Tensor, prompts: PromptSet) -> Tensor:
    """Return the image features (B, M, E) under M prompt sets.

    Images are (B, M, 3, R, R), one view per set, or (B, 3, R, R), the same for all sets. There is
    one forward of B * M images, in the order b * M + m, or of B images if the sets share images and
    have no image prompts.
    """
    sets, shared = _count_sets(prompts), images.dim() == 4 and not prompts.image
    images, tiled, each = (images, [], 1) if shared else _tile(images, prompts, sets)
    features = _with_projections(
        model, prompts, lambda clip: encode_image(clip, images, tiled, sets=each)
    )
    features = features.unflatten(0, (-1, 1 if shared else sets)).expand(-1, sets, -1)
    return _own_features(features, prompts)


def encode_image_sets_twice(
    model: CLIPModel, images: Tensor, prompts: PromptSet
) -> tuple[Tensor, Tensor]:
    """Return `encode_image_sets`, and the same without prompts or gradients: (B, M, E) each."""
    sets = _count_sets(prompts)
    images, tiled, each = _tile(images, prompts, sets)
    features, plain = _with_projections(
        model, prompts, lambda clip: encode_image_twice(clip, images, tiled, sets=each)
    )
    features = _own_features(features.unflatten(0, (-1, sets)), prompts)
    plain = plain[:, -features.shape[-1] :]
    return features, plain.unflatten(0, (-1, sets // each)).expand(-1, sets, -1)


def _with_projections(model: CLIPModel, prompts: PromptSet, function: Callable[..., T]) -> T:
    """Return `function(model)` with the image projections of all sets concatenated, CLIP's last.

    The tower runs once for all sets, and its features are (..., (M + 1) E) instead of (..., E).
    """
    changes = prompts.weights.get(IMAGE_PROJECTION)
    if changes is None:
        return function(model)
    start = model.get_parameter(IMAGE_PROJECTION)
    wide = torch.cat([*(start + changes.to(start.dtype)), start], dim=1)
    return run_with(model, {IMAGE_PROJECTION: wide}, function)


def _own_features(features: Tensor, prompts: PromptSet) -> Tensor:
    """Select each set's own projection: features (B, M, (M + 1) E) to (B, M, E)."""
    if IMAGE_PROJECTION not in prompts.weights:
        return features
    sets = torch.arange(features.shape[1], device=features.device)
    return features.unflatten(-1, (len(sets) + 1, -1))[:, sets, sets]


def _tile(images: Tensor, prompts: PromptSet, sets: int) -> tuple[Tensor, list[Tensor], int]:
    """Return images, prompts (B * M, n, D) per depth, and the number of sets per image.

    The number is M for B images, and 1 for (B, M, 3, R, R): B * M views in the order b * M + m.
    """
    if images.dim() == 5 and images.shape[1] != sets:
        raise ValueError(f"images must have {sets} views, one per template, got {images.shape[1]}")
    batch = images.shape[0]
    tiled = [depth.expand(batch, *depth.shape).flatten(0, 1) for depth in prompts.image]
    return (images.flatten(0, 1), tiled, 1) if images.dim() == 5 else (images, tiled, sets)


def _count_sets(prompts: PromptSet) -> int:
    given = [depth for depth in (*prompts.text, *prompts.image) if depth is not None]
    sets = {len(depth) if depth.dim() > 2 else 0 for depth in given}
    if len(sets) != 1 or sets == {0}:
        raise ValueError("prompts must have one leading axis of M sets in every tensor")
    return sets.pop()
