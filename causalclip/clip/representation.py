"""MMRL's learnable numbers: tokens of one space for both towers, and their own image projection."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from causalclip.clip.additions import Additions
from causalclip.clip.prompt_set import PromptSet
from causalclip.clip.prompts import STD


class RepresentationTokens(nn.Module):
    """Tokens of a shared space, projected into some layers of both towers (arXiv 2503.08497, 3.2).

    Named as in the published code.

    Args:
        n_tokens: tokens a layer; all layers project the same ones.
        dim: width of the shared space.
        layers: the layers of both towers that get them, counted from 1.
        text_width: width of the text tower.
        vision_width: width of the image tower.
        embed_dim: width of the joint space.
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
        self.compound_rep_tokens_r2vproj = _copies(nn.Linear(dim, vision_width), len(layers))
        self.compound_rep_tokens_r2tproj = _copies(nn.Linear(dim, text_width), len(layers))
        start = torch.randn(vision_width, embed_dim) / vision_width**0.5  # not CLIP's own [code]
        self.proj_rep = nn.Parameter(start)

    def forward(self) -> PromptSet:
        """Return the tokens (n_tokens, D) of each layer, as additions to both towers."""
        return PromptSet(
            text_additions=self._projected(self.compound_rep_tokens_r2tproj),
            image_additions=self._projected(self.compound_rep_tokens_r2vproj),
        )

    def features(self, tokens: Tensor) -> Tensor:
        """Return image features (B, E) of the tokens (B, n_tokens, D) that left the image tower."""
        return tokens.mean(1).to(self.proj_rep.dtype) @ self.proj_rep

    def _projected(self, projections: nn.ModuleList) -> Additions:
        layers = zip(self.layers, projections, strict=True)
        return Additions({layer - 1: p(self.compound_rep_tokens) for layer, p in layers})


def _copies(layer: nn.Module, count: int) -> nn.ModuleList:
    """As published, all start with the same weights."""
    return nn.ModuleList(copy.deepcopy(layer) for _ in range(count))
