"""CLIP's Vision Transformer, its last block for the class token alone: nothing else is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def encode_patches(visual: nn.Module, images: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
    """Return the image features (B, E), not normalised.

    Args:
        visual: OpenAI's VisionTransformer, unchanged.
        images: (B, 3, R, R), in the type of the weights.
        prompts: (n, D) or (B, n, D) per depth; the first is appended to the patches before
            `ln_pre`, the others replace these last tokens on entering block 1, 2, ...
    """
    patches = visual.conv1(images).flatten(2).transpose(1, 2)  # B L D
    first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    x = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    tokens = [prompt.to(x.dtype).expand(len(x), -1, -1) for prompt in prompts]  # B n D each
    x = torch.cat([x, *tokens[:1]], dim=1)
    x = visual.ln_pre(x).transpose(0, 1)  # L B D, as the blocks want it
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        if 0 < i < len(prompts):
            x = torch.cat([x[: -tokens[i].shape[1]], tokens[i].transpose(0, 1)])
        x = block(x) if i < len(blocks) - 1 else _class_token(block, x)
    x = visual.ln_post(x)
    return x if visual.proj is None else x @ visual.proj


def _class_token(block: nn.Module, x: Tensor) -> Tensor:
    """A residual block on the tokens (L, B, D), of which the first (B, D) is read."""
    attn, normed = block.attn, block.ln_1(x).transpose(0, 1)  # B L D
    weight, bias, width = attn.in_proj_weight, attn.in_proj_bias, attn.embed_dim
    q = F.linear(normed[:, :1], weight[:width], bias[:width])
    k, v = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    q, k, v = (t.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1)
    x = x[0] + F.linear(read, attn.out_proj.weight, attn.out_proj.bias)
    return x + block.mlp(block.ln_2(x))
