"""CLIP's Vision Transformer, computed for the tokens that are read.

In the last block only the class token is; of a prompt that another replaces in the next block, only
its keys and values. The weights and the arithmetic are those of the model's own modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from causalclip.clip.attention import image_attention, project_keys_values, project_queries
from causalclip.clip.openai_clip import Block, VisionTransformer
from causalclip.clip.prompt_set import NO_ADDITIONS, Additions


class AttentionInputs(NamedTuple):
    """The inputs of a block's attention: of the tokens that are read after it, and of all."""

    queries: Tensor  # (B, Q, D)
    keys_values: Tensor  # (B, S, 2 D)


def encode_patches(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NO_ADDITIONS,
) -> Tensor:
    """Return the image features (B, E), not normalised; arguments as of `read_tokens`."""
    return project(visual, read_tokens(visual, images, prompts, additions))


def encode_patches_twice(
    visual: VisionTransformer, images: Tensor, prompts: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return `encode_patches` with prompts, and without a graph, without prompts: (B, E) each.

    All that comes before the first attention is the same for both, and is computed once.
    """
    x = _embed(visual, images)
    shared = x, _attention_inputs(visual.transformer.resblocks[0], x, None)
    with torch.no_grad():
        plain = project(visual, read_tokens(visual, images, shared=shared))
    return project(visual, read_tokens(visual, images, prompts, shared=shared)), plain


def project(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """Return the features (B, E) of the class token in the result of `read_tokens`."""
    return tokens[:, 0] if visual.proj is None else tokens[:, 0] @ visual.proj


def read_tokens(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NO_ADDITIONS,
    *,
    shared: tuple[Tensor, AttentionInputs] | None = None,
) -> Tensor:
    """Return the class token and the n inserted tokens after `ln_post`, (B, 1 + n, D).

    Images are (B, 3, R, R) in the type of the weights, prompts (n, D) or (B, n, D) per depth, as
    `prompted` takes them. `shared` are the embedded images and the inputs of the first attention.
    """
    embedded, inputs = shared or (_embed(visual, images), None)
    x = embedded
    tokens = [prompt.to(x.dtype).expand(x.shape[0], -1, -1) for prompt in prompts]  # B n D each
    tokens[:1] = [visual.ln_pre(first) for first in tokens[:1]]
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks):
        last, replaced = i == len(blocks) - 1, tokens[i] if i < len(tokens) else None
        if replaced is not None and i == len(tokens) - 1 and not last:
            x, replaced = torch.cat([x, replaced], dim=1), None  # these stay to the end
        x = additions.insert_tokens(x, i)
        n_read = 1 + additions.n_tokens if last else None
        if inputs is None or x is not embedded:
            inputs = _attention_inputs(block, x, n_read)
        output = _run_block(block, x, inputs, n_read, replaced)
        x = additions.adapt(output, i, x[:, :n_read], block.ln_1)
    return visual.ln_post(x)


def _embed(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Return the class token and the patches (B, 1 + L, D) after `ln_pre`."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)  # B L D
    # shape[0], not len(): a number that torch.export can leave open
    first = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
    x = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    return visual.ln_pre(x)


def _attention_inputs(block: Block, x: Tensor, n_read: int | None) -> AttentionInputs:
    """Return queries of the first `n_read` tokens, keys and values of all (B, L, D)."""
    x = block.ln_1(x)
    queries = project_queries(block.attn, x[:, :n_read])
    return AttentionInputs(queries, project_keys_values(block.attn, x))


def _run_block(
    block: Block, x: Tensor, inputs: AttentionInputs, n_read: int | None, replaced: Tensor | None
) -> Tensor:
    """Return a residual block's output for the first `n_read` of the tokens (B, L, D).

    The next block replaces the prompts `replaced` (B, n, D): only their keys and values count.
    """
    queries, keys_values = inputs
    if replaced is not None:
        # A product of their own: where the patches need no gradient, none is computed.
        own = project_keys_values(block.attn, block.ln_1(replaced))
        keys_values = torch.cat([keys_values, own], dim=1)
    x = x[:, :n_read] + image_attention(block.attn, queries[:, :n_read], keys_values)
    return x + block.mlp(block.ln_2(x))
