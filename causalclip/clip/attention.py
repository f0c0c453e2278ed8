"""Attention with the weights of CLIP's own modules, only for tokens whose output is used.

Texts are packed in a `TextLayout`: their common start is computed once, and there is no padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.layout import TextLayout


def text_attention(
    attn: nn.MultiheadAttention, x: Tensor, layout: TextLayout, *, ends_only: bool = False
) -> Tensor:
    """Return causal attention (G, S, D) of G groups of normalised tokens `x` (G, S, D).

    `layout` gives the place of each text among the S tokens. With `ends_only`, return the outputs
    of the N end tokens only, in sorted order: (G, N, D).
    """
    queries = project_queries(attn, x[:, layout.ends] if ends_only else x)
    q, k, v = _by_head(attn, queries, project_keys_values(attn, x))
    scaled = q * q.shape[-1] ** -0.5
    return _merge_heads(attn, _attend(scaled, k, v, layout, ends_only=ends_only))


def image_attention(attn: nn.MultiheadAttention, queries: Tensor, keys_values: Tensor) -> Tensor:
    """Return attention (B, Q, D) of queries (B, Q, D) over keys and values (B, S, 2 D)."""
    q, k, v = _by_head(attn, queries, keys_values)
    return _merge_heads(attn, F.scaled_dot_product_attention(q, k, v))


def project_queries(attn: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Return the queries (..., D) of normalised tokens (..., D)."""
    width = attn.embed_dim
    return F.linear(tokens, attn.in_proj_weight[:width], attn.in_proj_bias[:width])


def project_keys_values(attn: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Return the keys followed by the values (..., 2 D) of normalised tokens (..., D)."""
    width = attn.embed_dim
    return F.linear(tokens, attn.in_proj_weight[width:], attn.in_proj_bias[width:])


def _by_head(
    attn: nn.MultiheadAttention, queries: Tensor, keys_values: Tensor
) -> tuple[Tensor, ...]:
    parts = (queries, *keys_values.chunk(2, dim=-1))
    # (..., H, S, d) each
    return tuple(t.unflatten(-1, (attn.num_heads, -1)).transpose(-3, -2) for t in parts)


def _merge_heads(attn: nn.MultiheadAttention, x: Tensor) -> Tensor:
    return F.linear(x.transpose(-3, -2).flatten(-2), attn.out_proj.weight, attn.out_proj.bias)


def _attend(q: Tensor, k: Tensor, v: Tensor, layout: TextLayout, *, ends_only: bool) -> Tensor:
    """Return the heads' outputs (G, H, Q, d), for the Q = S tokens or the Q = N end tokens.

    The scores on the common start are one matrix product for all texts, without copies of its keys.
    Texts of equal length attend to their own keys in one batch. The softmax covers both parts.
    """
    keys = [layout.n_shared, *(texts * length for texts, length in layout.groups)]
    queries = [0, *(texts for texts, _ in layout.groups)] if ends_only else keys
    (k_start, *k_own), (v_start, *v_own) = k.split(keys, dim=2), v.split(keys, dim=2)
    to_start = q @ k_start.mT
    (q_start, *q_own), (s_start, *s_own) = q.split(queries, dim=2), to_start.split(queries, dim=2)
    weights, outputs = [_softmax(s_start + _causal(s_start))], [torch.zeros_like(q_start)]
    for group, *parts in zip(layout.groups, q_own, s_own, k_own, v_own, strict=True):
        on_start, own = _attend_group(*(part.unflatten(2, (group.texts, -1)) for part in parts))
        weights.append(on_start.flatten(2, 3))
        outputs.append(own.flatten(2, 3))
    return torch.cat(weights, dim=2).to(v.dtype) @ v_start + torch.cat(outputs, dim=2)


def _attend_group(q: Tensor, to_start: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights on the common start (..., P) and the own tokens' output (..., d).

    For n texts of l tokens: q is (G, H, n, l, d), or (G, H, n, 1, d) for end tokens only; k and v
    are (G, H, n, l, d), and the scores `to_start` (G, H, n, l or 1, P).
    """
    own = q @ k.mT
    if q.shape[-2] > 1:
        own = own + _causal(own)
    weights = _softmax(torch.cat([to_start, own], dim=-1))
    on_start, on_own = weights.split([to_start.shape[-1], own.shape[-1]], dim=-1)
    return on_start, on_own.to(v.dtype) @ v


def _softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _causal(scores: Tensor) -> Tensor:
    return scores.new_full(scores.shape[-2:], float("-inf")).triu(1)
