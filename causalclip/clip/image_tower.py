"""CLIP's Vision Transformer, its last block for the tokens that are read: the class token alone.

The weights are the model's own modules'; the arithmetic is theirs too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalclip.clip.additions import NOTHING, Additions
from causalclip.clip.attention import image_attention
from causalclip.clip.model import Block, VisionTransformer


def encode_patches(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NOTHING,
) -> Tensor:
    """Return the image features (B, E), not normalised; arguments as of `read_tokens`."""
    return projected(visual, read_tokens(visual, images, prompts, additions))


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
    patches = visual.conv1(images).flatten(2).transpose(1, 2)  # B L D
    # shape[0], not len(): a number that torch.export can leave open
    first = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
    x = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    tokens = [prompt.to(x.dtype).expand(x.shape[0], -1, -1) for prompt in prompts]  # B n D each
    x = visual.ln_pre(torch.cat([x, *tokens[:1]], dim=1))
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        if 0 < i < len(tokens):
            x = torch.cat([x[:, : -tokens[i].shape[1]], tokens[i]], dim=1)
        x = additions.entered(x, i)
        read = 1 + additions.n_tokens if i == len(blocks) - 1 else None
        x = additions.adapted(_block(block, x, read), i, x[:, :read], block.ln_1)
    return visual.ln_post(x)


def _block(block: Block, x: Tensor, read: int | None) -> Tensor:
    """A residual block on the tokens (B, L, D); in the last one only the first `read` go on."""
    x = x[:, :read] + image_attention(block.attn, block.ln_1(x), read=read)
    return x + block.mlp(block.ln_2(x))
