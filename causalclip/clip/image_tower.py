"""CLIP's Vision Transformer, its last block for the class token alone: nothing else is read.

The weights are the model's own modules'; the arithmetic is theirs too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from causalclip.clip.attention import image_attention
from causalclip.clip.model import Block, VisionTransformer


def encode_patches(
    visual: VisionTransformer, images: Tensor, prompts: Sequence[Tensor] = ()
) -> Tensor:
    """Return the image features (B, E), not normalised.

    Args:
        visual: OpenAI's VisionTransformer, unchanged.
        images: (B, 3, R, R), in the type of the weights.
        prompts: (n, D) or (B, n, D) per depth; the first is appended to the patches before
            `ln_pre`, the others replace these last tokens on entering block 1, 2, ...
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
        x = _block(block, x, first_only=i == len(blocks) - 1)
    x = visual.ln_post(x[:, 0])
    return x if visual.proj is None else x @ visual.proj


def _block(block: Block, x: Tensor, *, first_only: bool) -> Tensor:
    """A residual block on the tokens (B, L, D); in the last one only the class token is read."""
    read = image_attention(block.attn, block.ln_1(x), first_only=first_only)
    x = (x[:, :1] if first_only else x) + read
    return x + block.mlp(block.ln_2(x))
