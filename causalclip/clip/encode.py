"""Features of texts and images, with or without prompts; unused outputs are not computed.

Features are not normalised. A tower of OpenAI's classes without hooks runs through our forward
with its weights. Any other runs its own, with prompts in hooks and texts cut to the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from causalclip.clip.image_tower import (
    encode_patches,
    patch_features,
    project,
    read_tokens,
    read_tokens_twice,
)
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
from causalclip.clip.text_tower import LowerTexts, PerClass, encode_layout, lower_texts
from causalclip.clip.texts import ClassTokens


def encode_text(model: CLIPModel, tokens: Tensor, *, truncate: bool = True) -> Tensor:
    """Return the text features (N, E) of `tokens` (N, L).

    Under a causal mask, tokens after the end-of-text token do not change its feature, and a common
    start has the same states in all texts. So by default padding is left out and a common start is
    computed once, which gives the same features and gradients for less work.

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
    lower: LowerTexts | None = None,
) -> Tensor:
    """Return the features (G, K, E) of K texts under G sets of prompts.

    The result is that of `encode_text` under `prompted` for each set, for less work.

    `prompts` has one entry per depth: a tensor (G, n, D), a tensor (G, K, n, D) with prompts for
    each text, or None to leave the depth as it is. Without prompts, G is 1. `lower` is what
    `encode_lower_texts` returned for the same texts.

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
        return encode_layout(model, *_prompt_tables(texts, prompts), additions, lower)
    positions, features = None if texts.leading else texts.positions, []
    for g in range(next((len(depth) for depth in prompts if depth is not None), 1)):
        own = _one_set(prompts, g)
        with prompted(model, text=own, text_positions=positions, text_additions=additions):
            features.append(encode_text(model, texts.tokens))
    return torch.stack(features)


def encode_classes(
    model: CLIPModel, texts: ClassTokens, prompts: PromptSet, lower: LowerTexts | None = None
) -> Tensor:
    """Return the text features (K, E) of all classes under one prompt set.

    Text prompts are (n, D), or (K, n, D) for class-specific ones; `lower` as in `encode_texts`.
    """
    one_set = [depth if depth is None else depth.unsqueeze(0) for depth in prompts.text]
    arguments = (texts, one_set, prompts.text_additions, lower)
    return with_weights(model, prompts.weights, encode_texts, *arguments)[0]


@torch.no_grad()
def encode_lower_texts(
    model: CLIPModel, texts: ClassTokens, prompts: PromptSet
) -> LowerTexts | None:
    """Return the hidden states of K texts on entering the first block with an addition.

    Training the additions does not change them. Return None with prompts, changed weights or
    per-text tokens, without an addition, and where the tower runs its own forward.
    """
    added = prompts.text_additions
    per_text = any(tokens.dim() == 3 for tokens in added.tokens.values())
    if prompts.text or prompts.weights or not added or per_text or not has_plain_text_tower(model):
        return None
    layout = texts.to(model.logit_scale.device).word_layout
    return lower_texts(model, layout, added.start)


def encode_prompted_image(model: CLIPModel, images: Tensor, prompts: PromptSet) -> Tensor:
    """Return the image features (B, E) of images (B, 3, R, R) under one prompt set."""
    arguments = (images, prompts.image, prompts.image_additions)
    return with_weights(model, prompts.weights, encode_image, *arguments)


def with_weights(
    model: CLIPModel, changes: Mapping[str, Tensor], function: Callable[..., Tensor], *args: Any
) -> Tensor:
    """Return `function(model, *args)` with changes added to weights of the model, by name.

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
    *,
    sets: int = 1,
) -> Tensor:
    """Return the image features (B, E) of `images` (B, 3, R, R).

    Prompts are one tensor per depth, (n, D) or (B, n, D). Prompts and additions enter the tower as
    in `prompted`. With M `sets`, prompts are (B * M, n, D) and features (B * M, E), where the M
    rows of an image are consecutive.

    Raises:
        ValueError: images of another size than the backbone's, prompts or additions that do not
            fit, or a model under nn.DataParallel.
        RuntimeError: prompts for a model that is prompted already.
    """
    _check_images(model, images, prompts, additions, sets=sets)
    if not has_plain_image_tower(model):
        with prompted(model, image=prompts, image_additions=additions):
            return model.encode_image(images.repeat_interleave(sets, 0))
    return encode_patches(model.visual, images.type(model.dtype), prompts, additions, sets=sets)


def encode_image_unprojected(model: CLIPModel, images: Tensor) -> Tensor:
    """Return the input (B, D) of the image projection, for a plain ViT of OpenAI's classes.

    Raises:
        ValueError: images of another size than the backbone's.
    """
    _check_images(model, images, (), NO_ADDITIONS)
    return read_tokens(model.visual, images.type(model.dtype))[:, 0]


def encode_image_patches(model: CLIPModel, images: Tensor) -> Tensor:
    """Return the features (B, L, E) of the L patches of images (B, 3, R, R).

    Raises:
        ValueError: a CLIP other than a plain ViT of OpenAI's classes, or images of another size.
    """
    if not has_plain_image_tower(model):
        got = type(backbone_of(model)).__name__
        raise ValueError(f"features of patches need a ViT of OpenAI's classes, got {got}")
    _check_images(model, images, (), NO_ADDITIONS)
    return patch_features(model.visual, images.type(model.dtype))


def encode_image_tokens(
    model: CLIPModel, images: Tensor, additions: Additions
) -> tuple[Tensor, Tensor]:
    """Return the image features (B, E) and the n inserted tokens (B, n, D) after `ln_post`.

    This needs a ViT of OpenAI's classes, and `additions` that insert tokens.
    """
    _check_images(model, images, (), additions)
    if has_plain_image_tower(model):
        x = read_tokens(model.visual, images.type(model.dtype), (), additions)
        return project(model.visual, x), x[:, 1:]
    tower = checked_tower(model, "image", (), additions)
    with with_additions(tower, additions) as left:
        features = model.encode_image(images)
    return features, model.visual.ln_post(left[-1].transpose(0, 1))


def encode_image_twice(
    model: CLIPModel, images: Tensor, prompts: Sequence[Tensor], *, sets: int = 1
) -> tuple[Tensor, Tensor]:
    """Return `encode_image` (B * M, E), and CLIP's own features (B, E) without gradients."""
    if has_plain_image_tower(model):
        _check_images(model, images, prompts, NO_ADDITIONS, sets=sets)
        images = images.type(model.dtype)
        tokens, plain = read_tokens_twice(model.visual, images, prompts, sets=sets)
        return project(model.visual, tokens), plain
    with torch.no_grad():
        plain = encode_image(model, images)
    return encode_image(model, images, prompts, sets=sets), plain


def encode_image_tokens_twice(
    model: CLIPModel, images: Tensor, additions: Additions
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `encode_image_tokens`, and CLIP's own features (B, E) without gradients."""
    if has_plain_image_tower(model):
        _check_images(model, images, (), additions)
        images = images.type(model.dtype)
        x, plain = read_tokens_twice(model.visual, images, (), additions)
        return project(model.visual, x), x[:, 1:], plain
    with torch.no_grad():
        plain = encode_image(model, images)
    return *encode_image_tokens(model, images, additions), plain


def _check_images(
    model: CLIPModel,
    images: Tensor,
    prompts: Sequence[Tensor],
    additions: Additions,
    *,
    sets: int = 1,
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
        check_samples(depth, sets * len(images))


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
    """Return the layout, one table (G, R, D) per depth, and the layout of later blocks, if another.

    All texts share the context up to the first depth with prompts per text, where it changes.
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
