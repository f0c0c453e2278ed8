"""CLIP's text tower on a `TextLayout`: no padding, and only end tokens in the last block.

The weights and the arithmetic are those of the model's own modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from causalclip.clip.attention import text_attention
from causalclip.clip.layout import TextLayout
from causalclip.clip.openai_clip import Block, CLIPModel
from causalclip.clip.prompt_set import NO_ADDITIONS, Additions

# Limit on the elements of the hidden layer of an MLP: 128 MiB in fp32. More sets of prompts run
# one after another, which bounds the memory and does not change the result.
MAX_HIDDEN = 2**25


class PerClass(NamedTuple):
    """The layout of the same texts from the block on where each text has its own prompts."""

    block: int
    layout: TextLayout


class LowerTexts(NamedTuple):
    """Hidden states of texts on entering a block; no earlier block has an addition."""

    x: Tensor  # (1, S, D)
    block: int


def encode_layout(
    model: CLIPModel,
    layout: TextLayout,
    prompts: Sequence[Tensor | None] = (),
    per_class: PerClass | None = None,
    additions: Additions = NO_ADDITIONS,
    lower: LowerTexts | None = None,
) -> Tensor:
    """Return the text features (G, N, E) of N texts under G sets of prompts, not normalised.

    Prompts are one table (G, R, D) or None per depth; without prompts, G is 1. From its block on,
    `per_class` replaces the layout. Additions are the same for all texts. Without prompts, `lower`
    may be the result of `lower_texts` for the layout, if it is known.
    """
    if not prompts:
        return _encode(model, layout, (), None, additions, lower)
    assert prompts[0] is not None, "encode_texts checks it"
    hidden = len((per_class.layout if per_class else layout).ids) * 4 * model.transformer.width
    step = max(1, MAX_HIDDEN // hidden)
    starts = range(0, len(prompts[0]), step)
    parts = ([p if p is None else p[i : i + step] for p in prompts] for i in starts)
    return torch.cat([_encode(model, layout, part, per_class, additions) for part in parts])


def lower_texts(model: CLIPModel, layout: TextLayout, block: int) -> LowerTexts:
    """Return the hidden states of texts on entering a block, without prompts."""
    x = _enter(model, layout, ())
    for lower in model.transformer.resblocks[:block]:
        x = _run_block(lower, x, layout, ends_only=False)
    return LowerTexts(x, block)


def _enter(model: CLIPModel, layout: TextLayout, prompts: Sequence[Tensor | None]) -> Tensor:
    x = model.token_embedding(layout.ids).type(model.dtype).unsqueeze(0)  # G S D
    if prompts and prompts[0] is not None:
        x = _place(x.expand(len(prompts[0]), -1, -1), prompts[0], layout)
    return x + model.positional_embedding.type(model.dtype)[layout.positions]


def _encode(
    model: CLIPModel,
    layout: TextLayout,
    prompts: Sequence[Tensor | None],
    per_class: PerClass | None,
    additions: Additions,
    lower: LowerTexts | None = None,
) -> Tensor:
    if lower is None or lower.block > additions.start:
        lower = LowerTexts(_enter(model, layout, prompts), 0)
    x, start = lower
    blocks = model.transformer.resblocks
    for i, block in enumerate(blocks[start:], start):
        if per_class is not None and i == per_class.block:
            x, layout = x[:, layout.spread_to(per_class.layout)], per_class.layout
        if 0 < i < len(prompts) and (table := prompts[i]) is not None:
            x = _place(x, table, layout)
        if i in additions.tokens and i == additions.first:
            layout = layout.shifted(additions.n_tokens)
        x, last = additions.insert_tokens(x, i), i == len(blocks) - 1
        read = x[:, layout.ends] if last else x
        x = additions.adapt(_run_block(block, x, layout, ends_only=last), i, read, block.ln_1)
    return model.ln_final(x).type(model.dtype)[:, layout.unsorted] @ model.text_projection


def _place(x: Tensor, table: Tensor, layout: TextLayout) -> Tensor:
    """Put the rows of a prompt table (G, R, D) into `x` (G, S, D)."""
    return x.index_copy(1, layout.prompted, table[:, layout.rows].to(x.dtype))


def _run_block(block: Block, x: Tensor, layout: TextLayout, *, ends_only: bool) -> Tensor:
    """Return a residual block's output for the tokens (G, S, D), or for the end tokens only."""
    attended = text_attention(block.attn, block.ln_1(x), layout, ends_only=ends_only)
    x = (x[:, layout.ends] if ends_only else x) + attended
    return x + block.mlp(block.ln_2(x))
