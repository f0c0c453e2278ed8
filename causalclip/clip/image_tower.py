"""CLIP's Vision Transformer, computed only for tokens whose output is used.

In the last block these are the class token and inserted tokens. For a prompt that the next block
replaces, only keys and values are computed. Weights and arithmetic are those of CLIP's modules.
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
    """Queries of the tokens whose output is used, and keys and values of all tokens."""

    queries: Tensor  # (B, Q, D)
    keys_values: Tensor  # (B, S, 2 D)


class Lower(NamedTuple):
    """Hidden states on entering a block; no earlier block has an addition."""

    x: Tensor  # (B, 1 + L, D)
    block: int
    inputs: AttentionInputs | None = None  # of the block, for `x` without additions

    def repeated(self, times: int) -> Lower:
        """Repeat each image `times` times, in consecutive rows."""
        if times == 1:
            return self
        x, *inputs = (t.repeat_interleave(times, 0) for t in (self.x, *(self.inputs or ())))
        return Lower(x, self.block, AttentionInputs(*inputs) if inputs else None)


def encode_patches(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NO_ADDITIONS,
    *,
    sets: int = 1,
) -> Tensor:
    """Return the image features (B, E), not normalised; arguments as in `read_tokens`."""
    return project(visual, read_tokens(visual, images, prompts, additions, sets=sets))


def read_tokens_twice(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NO_ADDITIONS,
    *,
    sets: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return `read_tokens`, and CLIP's own features (B, E) of the images without gradients.

    What both have in common is computed once: the blocks before the first addition and, where
    possible, the queries, keys and values of the next block.
    """
    lower = lower_tokens(visual, images, additions.start if additions else 0)
    with torch.no_grad():
        plain = project(visual, read_tokens(visual, images, lower=lower))
    return read_tokens(visual, images, prompts, additions, sets=sets, lower=lower), plain


def lower_tokens(visual: VisionTransformer, images: Tensor, block: int) -> Lower:
    """Return the tokens of images (B, 3, R, R) on entering a block, without any prompts."""
    x, blocks = _embed(visual, images), visual.transformer.resblocks
    for lower in blocks[:block]:
        x = _run_block(lower, x, _attention_inputs(lower, x, None), None, None)
    return Lower(x, block, _attention_inputs(blocks[block], x, None))


def project(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """Return the features (B, E) of the class token in the result of `read_tokens`."""
    return tokens[:, 0] if visual.proj is None else tokens[:, 0] @ visual.proj


def read_tokens(
    visual: VisionTransformer,
    images: Tensor,
    prompts: Sequence[Tensor] = (),
    additions: Additions = NO_ADDITIONS,
    *,
    sets: int = 1,
    lower: Lower | None = None,
) -> Tensor:
    """Return the class token and the n inserted tokens after `ln_post`, (B, 1 + n, D).

    Images are (B, 3, R, R) in the dtype of the weights, prompts (n, D) or (B, n, D) per depth, as
    in `prompted`. With M > 1 `sets`, prompts and result have B * M rows, in the order b * M + m.
    `lower` is the result of `lower_tokens` for the images, if it is known.
    """
    if lower is None:
        lower = lower_tokens(visual, images, 0) if sets > 1 else Lower(_embed(visual, images), 0)
    x, start, inputs = lower = lower.repeated(sets)
    tokens = [prompt.to(x.dtype).expand(x.shape[0], -1, -1) for prompt in prompts]  # B n D each
    tokens[:1] = [visual.ln_pre(first) for first in tokens[:1]]
    blocks = visual.transformer.resblocks
    for i, block in enumerate(blocks[start:], start):
        last, replaced = i == len(blocks) - 1, tokens[i] if i < len(tokens) else None
        if replaced is not None and i == len(tokens) - 1 and not last:
            x, replaced = torch.cat([x, replaced], dim=1), None  # the last prompts stay
        x = additions.insert_tokens(x, i)
        n_read = 1 + additions.n_tokens if last else None
        if inputs is None or x is not lower.x:
            inputs = _attention_inputs(block, x, n_read)
        output = _run_block(block, x, inputs, n_read, replaced)
        x = additions.adapt(output, i, x[:, :n_read], block.ln_1)
    return visual.ln_post(x)


def patch_features(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Return the features (B, L, E) of patches, as in GL-MCM (Miyai et al., IJCV 2025).

    In the last block each patch attends only to itself, so that its feature stays local.
    """
    *lower, last = visual.transformer.resblocks
    x = lower_tokens(visual, images, len(lower)).x
    alone = x[:, 1:].flatten(0, 1).unsqueeze(1)  # (B L, 1, D)
    alone = _run_block(last, alone, _attention_inputs(last, alone, None), None, None)
    return (visual.ln_post(alone) @ visual.proj).unflatten(0, (len(x), -1)).squeeze(2)


def _embed(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Return the class token and the patches (B, 1 + L, D) after `ln_pre`."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)  # B L D
    # shape[0], not len(), so that torch.export can keep the batch size dynamic
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

    The next block replaces the prompts `replaced` (B, n, D), so only keys and values are used.
    """
    queries, keys_values = inputs
    if replaced is not None:
        # A separate product, so that no gradient is computed for patches that need none.
        own = project_keys_values(block.attn, block.ln_1(replaced))
        keys_values = torch.cat([keys_values, own], dim=1)
    x = x[:, :n_read] + image_attention(block.attn, queries[:, :n_read], keys_values)
    return x + block.mlp(block.ln_2(x))
