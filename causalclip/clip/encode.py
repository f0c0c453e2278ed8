"""Features of texts and images, with prompts or without, and nothing computed that is not read.

A tower that is OpenAI's runs through our own forward, with its weights; any other through its own,
with prompts in hooks and text cut behind its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalclip.clip.additions import NOTHING, Additions, hooked
from causalclip.clip.image_tower import (
    encode_patches,
    encode_patches_twice,
    projected,
    read_tokens,
)
from causalclip.clip.injection import claimed, prompted, refuse_prompted
from causalclip.clip.kinds import backbone_of
from causalclip.clip.layout import TextLayout, text_layout
from causalclip.clip.model import CLIPModel
from causalclip.clip.plain import has_plain_image_tower, has_plain_text_tower
from causalclip.clip.prompt_checks import (
    check_classes,
    check_model,
    check_positions,
    check_prompts,
    check_sets,
    first_of,
    tower_for,
)
from causalclip.clip.text_tower import Apart, encode_layout
from causalclip.clip.texts import ClassTokens


def encode_text(model: CLIPModel, tokens: Tensor, *, truncate: bool = True) -> Tensor:
    """Return the text features (N, E) of `tokens` (N, L), not normalised.

    Under a causal mask nothing after the end-of-text token reaches it, and a common start has the
    same states in all texts. So by default neither padding nor a start that was computed already is
    computed: the same features and gradients for less work. Without the mask all is computed.

    Raises:
        ValueError: a model under nn.DataParallel.
    """
    check_model(model)
    if not truncate:
        return backbone_of(model).encode_text(tokens)
    if has_plain_text_tower(model):
        return encode_layout(model, text_layout(tokens))[0]
    return backbone_of(model).encode_text_cut(tokens)


def encode_texts(
    model: CLIPModel,
    texts: ClassTokens,
    prompts: Sequence[Tensor | None],
    additions: Additions = NOTHING,
) -> Tensor:
    """Return the features (G, K, E) of K texts under G sets of prompts, not normalised.

    What `encode_text` gives under `prompted` for each set, for less work.

    Args:
        model: the CLIP.
        texts: the K texts, with the places of the prompts.
        prompts: one tensor per depth, (G, n, D), or (G, K, n, D) where each text has its own, or
            None at a depth that is left as it is; none for the texts as they read, with G = 1.
        additions: to the blocks of the text tower.

    Raises:
        ValueError: prompts or additions that do not fit the tower or the texts, or a model under
            nn.DataParallel.
        RuntimeError: prompts for a model that is prompted already.
    """
    check_model(model)
    of_first_set = _of_set(prompts, 0)
    if prompts or additions:
        check_prompts("text", of_first_set, tower_for(model, "text", additions), additions)
    check_positions(of_first_set, texts.positions)
    check_classes(prompts, len(texts))
    if prompts or additions:
        refuse_prompted(model)
    texts = texts.to(model.logit_scale.device)
    if has_plain_text_tower(model) and not additions.per_sample:
        return encode_layout(model, *_tabled(texts, prompts), additions)
    positions, features = None if texts.leading else texts.positions, []
    for g in range(len(first_of(prompts)) if prompts else 1):
        own = _of_set(prompts, g)
        with prompted(model, text=own, text_positions=positions, text_additions=additions):
            features.append(encode_text(model, texts.tokens))
    return torch.stack(features)


def encode_image(
    model: CLIPModel,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NOTHING,
) -> Tensor:
    """Return the image features (B, E) of `images` (B, 3, R, R), not normalised.

    Args:
        model: the CLIP.
        images: what the backbone reads.
        prompts: one tensor per depth, (n, D) or (B, n, D), as `prompted` takes them for images.
        additions: to the blocks of the image tower.

    Raises:
        ValueError: images that do not have the size the backbone reads, prompts or additions that
            do not fit, or a model under nn.DataParallel.
        RuntimeError: prompts for a model that is prompted already.
    """
    _check_images(model, images, prompts, additions)
    if not has_plain_image_tower(model):
        with prompted(model, image=prompts, image_additions=additions):
            return backbone_of(model).encode_image(images)
    return encode_patches(model.visual, images.type(model.dtype), prompts, additions)


def encode_image_twice(
    model: CLIPModel, images: Tensor, prompts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return `encode_image` with prompts and, without a graph, with none; (B, E) each.

    Args:
        model: the CLIP.
        images: (B, 3, R, R).
        prompts: one tensor per depth, as in `encode_image`.

    Raises:
        ValueError: as `encode_image`.
        RuntimeError: as `encode_image`.
    """
    if has_plain_image_tower(model):
        _check_images(model, images, prompts, NOTHING)
        return encode_patches_twice(model.visual, images.type(model.dtype), prompts)
    with torch.no_grad():
        plain = encode_image(model, images)
    return encode_image(model, images, prompts), plain


def encode_image_tokens(
    model: CLIPModel, images: Tensor, additions: Additions
) -> tuple[Tensor, Tensor]:
    """Return the image features (B, E), and the n tokens that entered midway, (B, n, D).

    The tokens as they leave the last block and `ln_post`; the rest as `encode_image`.

    Args:
        model: the CLIP, a ViT.
        images: (B, 3, R, R).
        additions: to the blocks of the image tower, tokens among them.

    Raises:
        ValueError: as `encode_image`.
        RuntimeError: a model that is prompted already.
    """
    _check_images(model, images, (), additions)
    if has_plain_image_tower(model):
        x = read_tokens(model.visual, images.type(model.dtype), (), additions)
        return projected(model.visual, x), x[:, 1:]
    tower = tower_for(model, "image", additions)
    with claimed(model), hooked(tower, additions) as left:
        features = model.encode_image(images)
    return features, model.visual.ln_post(left[-1].transpose(0, 1))


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
        refuse_prompted(model)
        check_prompts("image", prompts, tower_for(model, "image", additions), additions)
    for depth in prompts:
        check_sets(depth, len(images))


def _tabled(
    texts: ClassTokens, prompts: Sequence[Tensor | None]
) -> tuple[TextLayout, list[Tensor | None], Apart | None]:
    """The layout of the texts, each depth's prompts as one table (G, R, D), what is of each text.

    Up to the first prompts that each text has for itself, the context is shared.
    """
    if not prompts:
        return texts.layout_of_words, [], None
    own = [i for i, depth in enumerate(prompts) if depth is not None and depth.dim() == 4]
    if not own:
        return texts.layout, list(prompts), None
    first, classes = own[0], len(texts)
    tables = [*prompts[:first], *(p if p is None else _table(p, classes) for p in prompts[first:])]
    if first == 0:
        return texts.layout_per_class, tables, None
    return texts.layout, tables, Apart(first, texts.layout_per_class)


def _table(prompt: Tensor, classes: int) -> Tensor:
    """(G, K n, D) of one depth's prompts, which all classes have in common or each its own."""
    own = prompt if prompt.dim() == 4 else prompt.unsqueeze(1).expand(-1, classes, -1, -1)
    return own.flatten(1, 2)


def _of_set(prompts: Sequence[Tensor | None], g: int) -> list[Tensor | None]:
    """The prompts of every depth of one set."""
    return [depth if depth is None else depth[g] for depth in prompts]
