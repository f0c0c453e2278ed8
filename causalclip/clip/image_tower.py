"""CLIP's Vision Transformer, computed for the tokens that are read.

Of the last block that is the class token alone; of a prompt whose place another takes in the next
block, its keys and values. The weights are the model's own modules'; the arithmetic is theirs too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from causalclip.clip.additions import NOTHING, Additions
from causalclip.clip.attention import image_attention, keys_values_of, queries_of
from causalclip.clip.model import Block, VisionTransformer


class Seen(NamedTuple):
    """What a block's attention works on."""

    queries: Tensor
    """(B, Q, D), of the tokens that are read behind the block."""
    keys_values: Tensor
    """(B, S, 2 D), of all that they see."""


class Entered(NamedTuple):
    """Images in front of the first block, the same whatever prompts will stand beside them."""

    tokens: Tensor
    """(B, 1 + L, D), the class token and the patches behind `ln_pre`."""
    seen: Seen | None = None
    """Of the first block, where more than one forward will ask for it."""


def encode_patches(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NOTHING,
) -> Tensor:
    """Return the image features (B, E), not normalised; arguments as of `read_tokens`."""
    return projected(visual, read_tokens(visual, images, prompts, additions))


def encode_patches_twice(
    visual: VisionTransformer, images: Tensor, prompts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what `encode_patches` gives with prompts and, without a graph, with none: (B, E) each.

    All that comes in front of the first attention is the same for both, and is computed once.
    """
    x, block = _entered(visual, images), visual.transformer.resblocks[0]
    entered = Entered(x, _seen(block, x, None))
    with torch.no_grad():
        plain = projected(visual, _through_blocks(visual, entered))
    return projected(visual, _through_blocks(visual, entered, prompts)), plain


def projected(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """The class token's features (B, E) of what `read_tokens` gives."""
    return tokens[:, 0] if visual.proj is None else tokens[:, 0] @ visual.proj


def read_tokens(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NOTHING,
) -> Tensor:
    """Return the class token and the n tokens that entered midway behind `ln_post`, (B, 1 + n, D).

    Args:
        visual: OpenAI's VisionTransformer, unchanged.
        images: (B, 3, R, R), in the type of the weights.
        prompts: (n, D) or (B, n, D) per depth; the first is appended to the patches before
            `ln_pre`, the others replace these last tokens on entering block 1, 2, ...
        additions: to the blocks.
    """
    return _through_blocks(visual, Entered(_entered(visual, images)), prompts, additions)


def _entered(visual: VisionTransformer, images: Tensor) -> Tensor:
    """The class token and the patches (B, 1 + L, D) behind `ln_pre`."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)  # B L D
    # shape[0], not len(): a number that torch.export can leave open
    first = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
    x = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    return visual.ln_pre(x)


def _through_blocks(
    visual: VisionTransformer,
    entered: Entered,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NOTHING,
) -> Tensor:
    """The tokens that are read, (B, 1 + n, D); see `read_tokens`."""
    x = entered.tokens
    tokens = [prompt.to(x.dtype).expand(x.shape[0], -1, -1) for prompt in prompts]  # B n D each
    tokens[:1] = [visual.ln_pre(first) for first in tokens[:1]]
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        last, beside = i == len(blocks) - 1, tokens[i] if i < len(tokens) else None
        if beside is not None and i == len(tokens) - 1 and not last:
            x, beside = torch.cat([x, beside], dim=1), None  # nothing takes their place
        x = additions.entered(x, i)
        read = 1 + additions.n_tokens if last else None
        seen = entered.seen if entered.seen and x is entered.tokens else _seen(block, x, read)
        x = additions.adapted(_block(block, x, seen, read, beside), i, x[:, :read], block.ln_1)
    return visual.ln_post(x)


def _seen(block: Block, x: Tensor, read: int | None) -> Seen:
    """Of the tokens (B, L, D) that enter a block, the first `read` of which are read behind it."""
    x = block.ln_1(x)
    return Seen(queries_of(block.attn, x[:, :read]), keys_values_of(block.attn, x))


def _block(block: Block, x: Tensor, seen: Seen, read: int | None, beside: Tensor | None) -> Tensor:
    """A residual block on the tokens (B, L, D), for the first `read` of them.

    Prompts `beside` them (B, n, D) are seen and not read: the next block has others in their place.
    """
    queries, keys_values = seen
    if beside is not None:
        # A product of their own: where the patches need no gradient, none is computed.
        own = keys_values_of(block.attn, block.ln_1(beside))
        keys_values = torch.cat([keys_values, own], dim=1)
    x = x[:, :read] + image_attention(block.attn, queries[:, :read], keys_values)
    return x + block.mlp(block.ln_2(x))
