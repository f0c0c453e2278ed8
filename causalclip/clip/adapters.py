"""Learnable additions to the blocks of both towers: MMA's adapters, MMRL's and MMRL++'s tokens.

Parameters are named as in the published code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from causalclip.clip.prompt_set import Additions, PromptSet
from causalclip.clip.prompts import STD, copies


class CoupledAdapters(nn.Module):
    """MMA: scale * up(shared(down(x))) added to each block (Yang et al., CVPR 2024, section 3.3).

    `down` and `shared` end in a ReLU; `shared` is the same for both towers. The gradient of the
    weights leaves out the factor `scale`, so a small `scale` does not make small steps [code].
    Layers `start` to `end` of both towers, counted from 1, get one adapter each, of width `dim`.
    """

    zero_bias = True

    def __init__(
        self, start: int, end: int, dim: int, text_width: int, vision_width: int, *, scale: float
    ) -> None:
        super().__init__()
        self.layers, self.dim, self.scale = tuple(range(start, end + 1)), dim, scale
        layers = list(map(str, self.layers))
        self.text_adapter = nn.ModuleDict({i: _bottleneck(text_width, dim) for i in layers})
        self.visual_adapter = nn.ModuleDict({i: _bottleneck(vision_width, dim) for i in layers})
        self.shared_adapter = nn.ModuleDict({i: _linear_relu(dim, dim) for i in layers})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if self.zero_bias:
                    nn.init.zeros_(module.bias)

    def forward(self, scale: float | None = None) -> PromptSet:
        """Return one adapter per layer and tower, as additions to the blocks.

        `scale` defaults to the module's own.
        """
        scale = self.scale if scale is None else scale
        return PromptSet(
            text_additions=self._additions(self.text_adapter, scale),
            image_additions=self._additions(self.visual_adapter, scale),
        )

    def _additions(self, tower: nn.ModuleDict, scale: float) -> Additions:
        adapters = {int(i) - 1: partial(self._adapt, tower[i], i, scale) for i in tower}
        return Additions(adapters=adapters)

    def _adapt(self, own: Any, layer: str, scale: float, x: Tensor) -> Tensor:
        x = Scaled.apply(x, 1.0, scale).to(own["up"].weight.dtype)
        x = own["up"](self.shared_adapter[layer](own["down"](x)))
        return Scaled.apply(x, scale, 1.0)


class ConsistentAdapters(CoupledAdapters):
    """MMA++: MMA's adapters, with one scale for training and a smaller one for tests (TPAMI 2026).

    `dropout` is the probability of dropping a feature of `shared` in a training step. Gradients
    include the scale, and biases start at random [code].
    """

    zero_bias = False

    def __init__(self, *sizes: int, scale: float, test_scale: float, dropout: float) -> None:
        super().__init__(*sizes, scale=scale)
        self.test_scale, self.dropout = test_scale, nn.Dropout(dropout)

    def forward(self, scale: float | None = None) -> PromptSet:
        """Return the adapters; `scale` defaults to that of the mode, training or evaluation."""
        own = self.scale if self.training else self.test_scale
        return super().forward(own if scale is None else scale)

    def _adapt(self, own: Any, layer: str, scale: float, x: Tensor) -> Tensor:
        hidden = self.shared_adapter[layer](own["down"](x.to(own["up"].weight.dtype)))
        return scale * own["up"](self.dropout(hidden))


class Scaled(torch.autograd.Function):
    """Multiply by one number in the forward pass, and the gradient by another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward_scale: float, backward_scale: float) -> Tensor:
        """Return x * forward_scale."""
        ctx.backward_scale = backward_scale
        return x * forward_scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient * backward_scale."""
        return gradients[0] * ctx.backward_scale, None, None


class RepresentationTokens(nn.Module):
    """MMRL: tokens of a shared space, projected into both towers (arXiv 2503.08497, section 3.2).

    `layers`, counted from 1, get `n_tokens` tokens each, all projected from the same tokens of
    width `dim`.
    """

    def __init__(
        self,
        n_tokens: int,
        dim: int,
        layers: Sequence[int],
        text_width: int,
        vision_width: int,
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.compound_rep_tokens = nn.Parameter(torch.empty(n_tokens, dim).normal_(std=STD))
        self.compound_rep_tokens_r2vproj = copies(nn.Linear(dim, vision_width), len(layers))
        self.compound_rep_tokens_r2tproj = copies(nn.Linear(dim, text_width), len(layers))
        start = torch.randn(vision_width, embed_dim) / vision_width**0.5  # not from CLIP [code]
        self.proj_rep = nn.Parameter(start)

    def forward(self) -> PromptSet:
        """Return the tokens (n_tokens, D) of each layer, as additions to both towers."""
        return PromptSet(
            text_additions=self._additions(self.compound_rep_tokens_r2tproj),
            image_additions=self._additions(self.compound_rep_tokens_r2vproj),
        )

    def features(self, tokens: Tensor) -> Tensor:
        """Return image features (B, E) of the tokens (B, n_tokens, D) after the image tower."""
        return tokens.mean(1).to(self.proj_rep.dtype) @ self.proj_rep

    def _additions(self, projections: nn.ModuleList) -> Additions:
        tokens = (project(self.compound_rep_tokens) for project in projections)
        return _by_layer(self.layers, tokens)


class ComposedTokens(nn.Module):
    """MMRL++: MMRL's tokens with shared projections, mixed across layers (arXiv 2505.10088).

    All layers of a tower share one projection weight; each adds its own bias and a change of rank
    `rank`. A layer after the first gets `new_share` times its projected tokens plus 1 - `new_share`
    times the tokens that the layer before returned. Tokens become features by CLIP's projection
    (D, E) plus a change of rank `projection_rank`. Other arguments as in `RepresentationTokens`.
    """

    clip_projection: Tensor

    def __init__(
        self,
        n_tokens: int,
        dim: int,
        layers: Sequence[int],
        text_width: int,
        clip_projection: Tensor,
        *,
        rank: int,
        projection_rank: int,
        new_share: float,
    ) -> None:
        super().__init__()
        self.layers, self.new_share = tuple(layers), new_share
        self.compound_rep_tokens = nn.Parameter(torch.empty(n_tokens, dim).normal_(std=STD))
        vision_width, embed_dim = clip_projection.shape
        self.srra_r2vproj = SharedLinear(dim, vision_width, len(layers), rank)
        self.srra_r2tproj = SharedLinear(dim, text_width, len(layers), rank)
        self.change = LowRank(vision_width, embed_dim, projection_rank)
        frozen = clip_projection.detach().float().clone()
        self.register_buffer("clip_projection", frozen, persistent=False)

    def forward(self) -> PromptSet:
        """Return the tokens (n_tokens, D) of each layer, as additions to both towers."""
        return PromptSet(
            text_additions=self._additions(self.srra_r2tproj),
            image_additions=self._additions(self.srra_r2vproj),
        )

    def features(self, tokens: Tensor) -> Tensor:
        """Return image features (B, E) of the tokens (B, n_tokens, D) after the image tower."""
        return tokens.mean(1).to(self.clip_projection.dtype) @ self.change(self.clip_projection)

    def _additions(self, projection: SharedLinear) -> Additions:
        tokens = projection(self.compound_rep_tokens)
        return _by_layer(self.layers, tokens, self.new_share)


class LowRank(nn.Module):
    """A change A B of a matrix (rows, columns); zero at the start."""

    def __init__(self, rows: int, columns: int, rank: int, bias: Tensor | None = None) -> None:
        super().__init__()
        bound = 1 / math.sqrt(rank)  # as in nn.Linear
        self.A = nn.Parameter(torch.empty(rows, rank).uniform_(-bound, bound))
        self.B = nn.Parameter(torch.zeros(rank, columns))
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.clone()))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed matrix."""
        return weight + self.A @ self.B


class SharedLinear(nn.Module):
    """Linear maps that share a weight (out, width); each has its own LowRank change and bias."""

    def __init__(self, width: int, out: int, count: int, rank: int) -> None:
        super().__init__()
        start = nn.Linear(width, out)
        self.weight = start.weight
        changes = (LowRank(out, width, rank, start.bias.detach()) for _ in range(count))
        self.srra = nn.ModuleList(changes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the result (..., out) of each map."""
        changed = ((change(self.weight), change.get_parameter("bias")) for change in self.srra)
        return [F.linear(x, weight, bias) for weight, bias in changed]


def _by_layer(layers: Sequence[int], tokens: Iterable[Tensor], new_share: float = 1) -> Additions:
    numbered = zip(layers, tokens, strict=True)
    return Additions({layer - 1: own for layer, own in numbered}, new_share=new_share)


def _bottleneck(width: int, dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({"down": _linear_relu(width, dim), "up": nn.Linear(dim, width)})


def _linear_relu(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, out), nn.ReLU())
