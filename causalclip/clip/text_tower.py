"""CLIP's text tower on a `TextLayout`: a common start once, no padding, ends alone at last.

The weights are the model's own modules'; the arithmetic is theirs too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from causalclip.clip.additions import NOTHING, Additions
from causalclip.clip.attention import text_attention
from causalclip.clip.layout import TextLayout
from causalclip.clip.model import Block, CLIPModel

# Numbers in the hidden layer of an MLP: 128 MiB in fp32. More groups of texts run one after
# another, which bounds the memory of an evaluation and changes nothing else.
AT_ONCE = 2**25


class Apart(NamedTuple):
    """Where texts that shared their context go on with one of each."""

    block: int
    layout: TextLayout
    """From this block on; of the same texts, and shares less."""


def encode_layout(
    model: CLIPModel,
    layout: TextLayout,
    prompts: Sequence[Tensor | None] = (),
    apart: Apart | None = None,
    additions: Additions = NOTHING,
) -> Tensor:
    """Return the text features (G, N, E) of N texts under G sets of prompts, not normalised.

    Args:
        model: OpenAI's CLIP, unchanged.
        layout: the N texts.
        prompts: one table (G, R, D) per depth; the first takes the place of token embeddings, the
            others of the activations that enter block 1, 2, ..., which None leaves as they are.
            Without prompts G is 1.
        apart: where the tables begin to be of another layout.
        additions: to the blocks; the same tokens for all texts.
    """
    if not prompts:
        return _encode(model, layout, (), None, additions)
    assert prompts[0] is not None, "encode_texts checks it"
    hidden = len((apart.layout if apart else layout).ids) * 4 * model.transformer.width
    step = max(1, AT_ONCE // hidden)
    starts = range(0, len(prompts[0]), step)
    parts = ([p if p is None else p[i : i + step] for p in prompts] for i in starts)
    return torch.cat([_encode(model, layout, part, apart, additions) for part in parts])


def _encode(
    model: CLIPModel,
    layout: TextLayout,
    prompts: Sequence[Tensor | None],
    apart: Apart | None,
    additions: Additions,
) -> Tensor:
    x = model.token_embedding(layout.ids).type(model.dtype).unsqueeze(0)  # G S D
    if prompts and prompts[0] is not None:
        x = _placed(x.expand(len(prompts[0]), -1, -1), prompts[0], layout)
    x = x + model.positional_embedding.type(model.dtype)[layout.places]
    blocks = model.transformer.resblocks
    for i, block in enumerate(blocks):
        if apart is not None and i == apart.block:
            x, layout = x[:, layout.spread(apart.layout)], apart.layout
        if 0 < i < len(prompts) and (table := prompts[i]) is not None:
            x = _placed(x, table, layout)
        if i in additions.tokens and i == additions.first:
            layout = layout.behind(additions.n_tokens)
        x, last = additions.entered(x, i), i == len(blocks) - 1
        read = x[:, layout.ends] if last else x
        x = additions.adapted(_block(block, x, layout, ends_only=last), i, read, block.ln_1)
    return model.ln_final(x).type(model.dtype)[:, layout.unsorted] @ model.text_projection


def _placed(x: Tensor, table: Tensor, layout: TextLayout) -> Tensor:
    """Put prompts (G, R, D) where they stand in `x` (G, S, D)."""
    return x.index_copy(1, layout.prompted, table[:, layout.rows].to(x.dtype))


def _block(block: Block, x: Tensor, layout: TextLayout, *, ends_only: bool) -> Tensor:
    """A residual block on the tokens (G, S, D); in the last one only the end tokens are read."""
    read = text_attention(block.attn, block.ln_1(x), layout, ends_only=ends_only)
    x = (x[:, layout.ends] if ends_only else x) + read
    return x + block.mlp(block.ln_2(x))
