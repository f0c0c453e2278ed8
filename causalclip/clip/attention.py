"""CLIP's attention with its modules' weights, for the tokens that are read.

Texts lie in a `TextLayout`: their common start is shared, and nothing is padded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.layout import TextLayout


def text_attention(
    attn: nn.MultiheadAttention, x: Tensor, layout: TextLayout, *, ends_only: bool = False
) -> Tensor:
    """Return what causal attention gives for the S tokens of a layout, (G, S, D).

    Args:
        attn: the module whose weights are used.
        x: (G, S, D), normalised tokens of G groups.
        layout: where each text lies among the S tokens.
        ends_only: attend for the N end tokens alone, in the sorted order: (G, N, D).
    """
    queries = queries_of(attn, x[:, layout.ends] if ends_only else x)
    q, k, v = _by_head(attn, queries, keys_values_of(attn, x))
    scaled = q * q.shape[-1] ** -0.5
    return _merged(attn, _attend(scaled, k, v, layout, ends_only=ends_only))


def image_attention(attn: nn.MultiheadAttention, queries: Tensor, keys_values: Tensor) -> Tensor:
    """Return what attention gives for tokens of images, (B, Q, D).

    Args:
        attn: the module whose weights are used.
        queries: (B, Q, D), of the tokens that are attended for.
        keys_values: (B, S, 2 D), of all that they see.
    """
    q, k, v = _by_head(attn, queries, keys_values)
    return _merged(attn, F.scaled_dot_product_attention(q, k, v))


def queries_of(attn: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """The queries (..., D) of normalised tokens (..., D)."""
    width = attn.embed_dim
    return F.linear(tokens, attn.in_proj_weight[:width], attn.in_proj_bias[:width])


def keys_values_of(attn: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """The keys and, behind them, the values (..., 2 D) of normalised tokens (..., D)."""
    width = attn.embed_dim
    return F.linear(tokens, attn.in_proj_weight[width:], attn.in_proj_bias[width:])


def _by_head(
    attn: nn.MultiheadAttention, queries: Tensor, keys_values: Tensor
) -> tuple[Tensor, ...]:
    """Queries, keys and values, (..., H, S, d) each."""
    parts = (queries, *keys_values.chunk(2, dim=-1))
    return tuple(t.unflatten(-1, (attn.num_heads, -1)).transpose(-3, -2) for t in parts)


def _merged(attn: nn.MultiheadAttention, read: Tensor) -> Tensor:
    """What the heads read (..., H, S, d), projected back: (..., S, D)."""
    return F.linear(read.transpose(-3, -2).flatten(-2), attn.out_proj.weight, attn.out_proj.bias)


def _attend(q: Tensor, k: Tensor, v: Tensor, layout: TextLayout, *, ends_only: bool) -> Tensor:
    """What the heads read (G, H, Q, d), for the Q = S tokens or the Q = N end tokens.

    The keys and values of the common start are one matrix product for all texts, never copied.
    Those of a text's own are seen in rows, the texts of one length together; softmax runs over
    both.
    """
    keys = [layout.n_shared, *(texts * length for texts, length in layout.runs)]
    queries = [0, *(texts for texts, _ in layout.runs)] if ends_only else keys
    (k_start, *k_own), (v_start, *v_own) = k.split(keys, dim=2), v.split(keys, dim=2)
    to_start = q @ k_start.mT
    (q_start, *q_own), (s_start, *s_own) = q.split(queries, dim=2), to_start.split(queries, dim=2)
    weights, read = [_softmax(s_start + _causal(s_start))], [torch.zeros_like(q_start)]
    for run, *parts in zip(layout.runs, q_own, s_own, k_own, v_own, strict=True):
        on_start, own = _attend_run(*(part.unflatten(2, (run.texts, -1)) for part in parts))
        weights.append(on_start.flatten(2, 3))
        read.append(own.flatten(2, 3))
    return torch.cat(weights, dim=2).to(v.dtype) @ v_start + torch.cat(read, dim=2)


def _attend_run(q: Tensor, to_start: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of n texts of l tokens: weights on the start (..., P), own values read (..., d).

    Args:
        q: (G, H, n, l, d), or (G, H, n, 1, d) for end tokens alone.
        to_start: scores on the common start, (G, H, n, l or 1, P).
        k: (G, H, n, l, d).
        v: (G, H, n, l, d).
    """
    own = q @ k.mT
    if q.shape[-2] > 1:
        own = own + _causal(own)
    weights = _softmax(torch.cat([to_start, own], dim=-1))
    on_start, on_own = weights.split([to_start.shape[-1], own.shape[-1]], dim=-1)
    return on_start, on_own.to(v.dtype) @ v


def _softmax(scores: Tensor) -> Tensor:
    """Attention weights, summed in fp32 at least."""
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _causal(scores: Tensor) -> Tensor:
    """-inf where a key stands behind its query; as many rows and columns as the scores."""
    return scores.new_full(scores.shape[-2:], float("-inf")).triu(1)
