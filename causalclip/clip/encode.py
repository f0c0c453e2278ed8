"""Features of texts and images, with prompts or without; nothing is computed that is not read.

None of them is normalised. A plain tower of OpenAI's runs through our own forward, with its
weights; any other through its own, with prompts in hooks and texts cut after their ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from causalclip.clip.image_tower import encode_patches, encode_patches_twice, project, read_tokens
from causalclip.clip.injection import prompted, with_additions
from causalclip.clip.interface import backbone_of, run_with
from causalclip.clip.layout import TextLayout, text_layout
from causalclip.clip.openai_clip import CLIPModel, has_plain_image_tower, has_plain_text_tower
from causalclip.clip.prompt_set import (
    NO_ADDITIONS,
    Additions,
    PromptSet,
    check_model,
    check_positions,
    check_samples,
    checked_tower,
)
from causalclip.clip.text_tower import PerClass, encode_layout
from causalclip.clip.texts import ClassTokens


def encode_text(model: CLIPModel, tokens: Tensor, *, truncate: bool = True) -> Tensor:
    """Return the text features (N, E) of `tokens` (N, L).

    Under a causal mask nothing after the end-of-text token reaches it, and a common start has the
    same states in all texts. So by default padding is not computed, and a start only once: the same
    features and gradients for less work.

    Raises:
        ValueError: a model under nn.DataParallel.
    """
    check_model(model)
    if not truncate:
        return model.encode_text(tokens)
    if has_plain_text_tower(model):
        return encode_layout(model, text_layout(tokens))[0]
    return backbone_of(model).encode_text_truncated(tokens)


def encode_texts(
    model: CLIPModel,
    texts: ClassTokens,
    prompts: Sequence[Tensor | None],
    additions: Additions = NO_ADDITIONS,
) -> Tensor:
    """Return the features (G, K, E) of K texts under G sets of prompts.

    The result of `encode_text` under `prompted` for each set, for less work.

    Prompts are one tensor per depth, (G, n, D), or (G, K, n, D) where each text has its own, or
    None at a depth that is left as it is; none for the texts as they read, with G = 1.

    Raises:
        ValueError: prompts or additions that do not fit, or a model under nn.DataParallel.
        RuntimeError: prompts for a model that is prompted already.
    """
    check_model(model)
    first_set = _one_set(prompts, 0)
    if prompts or additions:
        checked_tower(model, "text", first_set, additions)
    check_positions(first_set, texts.positions)
    _check_classes(prompts, len(texts))
    texts = texts.to(model.logit_scale.device)
    per_text = any(tokens.dim() == 3 for tokens in additions.tokens.values())
    if has_plain_text_tower(model) and not per_text:
        return encode_layout(model, *_prompt_tables(texts, prompts), additions)
    positions, features = None if texts.leading else texts.positions, []
    for g in range(next((len(depth) for depth in prompts if depth is not None), 1)):
        own = _one_set(prompts, g)
        with prompted(model, text=own, text_positions=positions, text_additions=additions):
            features.append(encode_text(model, texts.tokens))
    return torch.stack(features)


def encode_classes(model: CLIPModel, texts: ClassTokens, prompts: PromptSet) -> Tensor:
    """Return the text features (K, E) of all classes under one prompt set.

    Text prompts are (n, D), or (K, n, D) for class-specific ones.
    """
    one_set = [depth if depth is None else depth.unsqueeze(0) for depth in prompts.text]
    arguments = (texts, one_set, prompts.text_additions)
    return with_weights(model, prompts.weights, encode_texts, *arguments)[0]


def encode_text_sets(model: CLIPModel, texts: ClassTokens, prompts: PromptSet) -> Tensor:
    """Return the text features (M, K, E) of all classes under M prompt sets.

    The M sets are templates (CDC) or images (CoCoOp); each text prompt is (M, n, D), or
    (M, K, n, D) for class-specific contexts. Their image prompts are not used.
    """
    sets = _count_sets(prompts)
    return encode_texts(model, texts, prompts.text).expand(sets, -1, -1)


def encode_prompted_image(model: CLIPModel, images: Tensor, prompts: PromptSet) -> Tensor:
    """Return the image features (B, E) of images (B, 3, R, R) under one prompt set."""
    arguments = (images, prompts.image, prompts.image_additions)
    return with_weights(model, prompts.weights, encode_image, *arguments)


def with_weights(
    model: CLIPModel, changes: Mapping[str, Tensor], function: Callable[..., Tensor], *args: Any
) -> Tensor:
    """Return `function(model, *args)` while changes are added to weights of the model, by name.

    The model is left as it is; gradients reach the changes.
    """
    if not changes:
        return function(model, *args)
    changed = {}
    for name, change in changes.items():
        weight = model.get_parameter(name)
        changed[name] = weight + change.to(weight.dtype)
    return run_with(model, changed, function, *args)


def encode_image(
    model: CLIPModel,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NO_ADDITIONS,
) -> Tensor:
    """Return the image features (B, E) of `images` (B, 3, R, R).

    Prompts are one tensor per depth, (n, D) or (B, n, D); they and the additions to the blocks are
    as `prompted` takes them for images.

    Raises:
        ValueError: images of another size than the backbone's, prompts or additions that do not
            fit, or a model under nn.DataParallel.
        RuntimeError: prompts for a model that is prompted already.
    """
    _check_images(model, images, prompts, additions)
    if not has_plain_image_tower(model):
        with prompted(model, image=prompts, image_additions=additions):
            return model.encode_image(images)
    return encode_patches(model.visual, images.type(model.dtype), prompts, additions)


def encode_image_unprojected(model: CLIPModel, images: Tensor) -> Tensor:
    """Return what the image projection of a plain ViT of OpenAI's classes takes, (B, D).

    Raises:
        ValueError: images of another size than the backbone's.
    """
    _check_images(model, images, (), NO_ADDITIONS)
    return read_tokens(model.visual, images.type(model.dtype))[:, 0]


def encode_image_tokens(
    model: CLIPModel, images: Tensor, additions: Additions
) -> tuple[Tensor, Tensor]:
    """Return the image features (B, E) and the n inserted tokens (B, n, D) after `ln_post`.

    Of a ViT of OpenAI's classes; the tokens are among the `additions` to its blocks.
    """
    _check_images(model, images, (), additions)
    if has_plain_image_tower(model):
        x = read_tokens(model.visual, images.type(model.dtype), (), additions)
        return project(model.visual, x), x[:, 1:]
    tower = checked_tower(model, "image", (), additions)
    with with_additions(tower, additions) as left:
        features = model.encode_image(images)
    return features, model.visual.ln_post(left[-1].transpose(0, 1))


def encode_image_sets(model: CLIPModel, images: Tensor, prompts: PromptSet) -> Tensor:
    """Return the image features (B, M, E) under M prompt sets.

    Images are (B, M, 3, R, R), a view of its own for each set, or (B, 3, R, R), the same for all.
    One forward of B * M images, in the order b * M + m; of B where no set has image prompts.
    """
    sets = _count_sets(prompts)
    if images.dim() == 4 and not prompts.image:
        return encode_image(model, images).unsqueeze(1).expand(-1, sets, -1)
    views, tiled = _tile(images, prompts, sets)
    return encode_image(model, views, tiled).unflatten(0, (-1, sets))


def encode_image_sets_twice(
    model: CLIPModel, views: Tensor, prompts: PromptSet
) -> tuple[Tensor, Tensor]:
    """Return `encode_image_sets` of views (B, M, 3, R, R), and without a graph, without prompts."""
    sets = _count_sets(prompts)
    images, tiled = _tile(views, prompts, sets)
    if has_plain_image_tower(model):
        _check_images(model, images, tiled, NO_ADDITIONS)
        images = images.type(model.dtype)
        with_prompts, plain = encode_patches_twice(model.visual, images, tiled)
    else:
        with torch.no_grad():
            plain = encode_image(model, images)
        with_prompts = encode_image(model, images, tiled)
    return with_prompts.unflatten(0, (-1, sets)), plain.unflatten(0, (-1, sets))


def _check_images(
    model: CLIPModel, images: Tensor, prompts: Sequence[Tensor], additions: Additions
) -> None:
    check_model(model)
    size = backbone_of(model).image_size
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise ValueError(
            f"images must have shape (B, 3, {size}, {size}) for this backbone, "
            f"got {tuple(images.shape)}"
        )
    if prompts or additions:
        checked_tower(model, "image", prompts, additions)
    for depth in prompts:
        check_samples(depth, len(images))


def _one_set(prompts: Sequence[Tensor | None], g: int) -> list[Tensor | None]:
    return [depth if depth is None else depth[g] for depth in prompts]


def _check_classes(prompts: Sequence[Tensor | None], classes: int) -> None:
    for depth in prompts:
        if depth is not None and depth.dim() == 4 and depth.shape[1] != classes:
            raise ValueError(
                f"class-specific contexts of {depth.shape[1]} classes cannot encode {classes} "
                "classes; they do not transfer (CoOp, section 3.1)"
            )


def _prompt_tables(
    texts: ClassTokens, prompts: Sequence[Tensor | None]
) -> tuple[TextLayout, list[Tensor | None], PerClass | None]:
    """Return the layout, one table (G, R, D) per depth, and the layout from a block on.

    Up to the first prompts that each text has for itself, the context is shared.
    """
    if not prompts:
        return texts.word_layout, [], None
    tables = list(prompts)
    first = next((i for i, p in enumerate(prompts) if p is not None and p.dim() == 4), None)
    if first is None:
        return texts.layout, tables, None
    for i, depth in enumerate(prompts):
        if i >= first and depth is not None:  # shared by all classes, or one per class
            own = depth if depth.dim() == 4 else depth.unsqueeze(1).expand(-1, len(texts), -1, -1)
            tables[i] = own.flatten(1, 2)
    if first == 0:
        return texts.layout_per_class, tables, None
    return texts.layout, tables, PerClass(first, texts.layout_per_class)


def _tile(images: Tensor, prompts: PromptSet, sets: int) -> tuple[Tensor, list[Tensor]]:
    """Return B * M images, in the order b * M + m, and image prompts (B * M, n, D) per depth."""
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
