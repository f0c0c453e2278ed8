"""MMA's learnable numbers: bottlenecks beside the blocks of both towers that share their middle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from causalclip.clip.additions import Additions
from causalclip.clip.prompt_set import PromptSet


class CoupledAdapters(nn.Module):
    """scale * up(shared(down(x))) beside each block (Yang et al., CVPR 2024, section 3.3).

    `down` and `shared` end in a ReLU; `shared` is the same for both towers. The small `scale` does
    not make the steps small: the weights get the gradient they would have without it [code].

    Args:
        start: the first layer of both towers that has one, counted from 1.
        end: the last one.
        dim: width of the bottleneck.
        text_width: width of the text tower.
        vision_width: width of the image tower.
        scale: what a block's output is added in units of.
    """

    def __init__(
        self, start: int, end: int, dim: int, text_width: int, vision_width: int, *, scale: float
    ) -> None:
        super().__init__()
        self.layers, self.dim, self.scale = tuple(range(start, end + 1)), dim, scale
        layers = list(map(str, self.layers))
        self.text_adapter = nn.ModuleDict({i: Bottleneck(text_width, dim) for i in layers})
        self.visual_adapter = nn.ModuleDict({i: Bottleneck(vision_width, dim) for i in layers})
        self.shared_adapter = nn.ModuleDict({i: _rectified(dim, dim) for i in layers})
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self) -> PromptSet:
        """Return one adapter a layer and tower, as additions to the blocks."""
        return PromptSet(
            text_additions=self._additions(self.text_adapter),
            image_additions=self._additions(self.visual_adapter),
        )

    def _additions(self, tower: nn.ModuleDict) -> Additions:
        return Additions(adapters={int(i) - 1: partial(self._adapted, tower[i], i) for i in tower})

    def _adapted(self, own: nn.Module, layer: str, x: Tensor) -> Tensor:
        """What a layer's adapter makes of tokens (..., D)."""
        x = own(Scaled.apply(x, 1.0, self.scale), self.shared_adapter[layer])
        return Scaled.apply(x, self.scale, 1.0)


class Bottleneck(nn.Module):
    """The part of an adapter that is a tower's own."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.down, self.up = _rectified(width, dim), nn.Linear(dim, width)

    def forward(self, x: Tensor, shared: nn.Module) -> Tensor:
        """up(shared(down(x))) of tokens (..., width), in the precision of the weights."""
        return self.up(shared(self.down(x.to(self.up.weight.dtype))))


class Scaled(torch.autograd.Function):
    """x times one number on the way forward, its gradient times another on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: float, back: float) -> Tensor:
        """x * forth."""
        ctx.back = back
        return x * forth

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient * back."""
        return gradients[0] * ctx.back, None, None


def layers_of(state: Mapping[str, Tensor]) -> list[int]:
    """The layers that have adapters in a state dict, sorted."""
    return sorted({int(name.split(".")[1]) for name in state if name.startswith("shared_adapter.")})


def _rectified(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, out), nn.ReLU())
