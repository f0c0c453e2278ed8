"""What is read of OpenAI's CLIP, as types: annotations only, nothing is ever built of these.

OpenAI's package is found by location and has no annotations, so its classes cannot be named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual attention block on tokens (L, N, D)."""

    attn: nn.MultiheadAttention
    ln_1: nn.LayerNorm
    mlp: nn.Sequential
    ln_2: nn.LayerNorm


class Transformer(nn.Module):
    """The blocks of a tower."""

    width: int
    """D."""
    layers: int
    resblocks: Sequence[Block]


class VisionTransformer(nn.Module):
    """The image tower of a ViT: pictures of R by R pixels to features (B, E)."""

    input_resolution: int
    """R."""
    conv1: nn.Conv2d
    class_embedding: nn.Parameter
    """(D,)."""
    positional_embedding: nn.Parameter
    """(1 + number of patches, D)."""
    ln_pre: nn.LayerNorm
    transformer: Transformer
    ln_post: nn.LayerNorm
    proj: nn.Parameter | None
    """(D, E)."""


class CLIPModel(nn.Module):
    """OpenAI's CLIP. D is the width of the text tower, E of the joint space, L its context."""

    context_length: int
    """L."""
    vocab_size: int
    token_embedding: nn.Embedding
    """(vocabulary, D)."""
    positional_embedding: nn.Parameter
    """(L, D)."""
    transformer: Transformer
    ln_final: nn.LayerNorm
    text_projection: nn.Parameter
    """(D, E)."""
    visual: Any
    """The image tower: a `VisionTransformer`, or CLIP's ResNet."""
    logit_scale: nn.Parameter

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights that CLIP casts."""
        raise NotImplementedError

    def encode_text(self, text: Tensor) -> Tensor:
        """Token ids (N, L) to features (N, E)."""
        raise NotImplementedError

    def encode_image(self, image: Tensor) -> Tensor:
        """Images (B, 3, R, R) to features (B, E)."""
        raise NotImplementedError


def image_size(model: CLIPModel) -> int:
    """Return the side of the square images `model` reads, in pixels."""
    return model.visual.input_resolution


def is_vit(model: CLIPModel) -> bool:
    """Tell whether the image tower is a Vision Transformer (else it is CLIP's ResNet)."""
    return hasattr(model.visual, "transformer")
