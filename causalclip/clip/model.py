"""What the mathematics needs of a CLIP, as types: OpenAI's own is untyped, and others fit too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Block(Protocol):
    """A residual attention block on tokens (L, N, D)."""

    attn: nn.MultiheadAttention
    ln_1: nn.LayerNorm
    ln_2: nn.LayerNorm
    mlp: nn.Sequential


class Transformer(Protocol):
    """Residual blocks of one width."""

    width: int
    layers: int
    resblocks: Any
    """An `nn.Sequential` of blocks."""


class VisionTransformer(Protocol):
    """CLIP's ViT, of width D; a ResNet tower has other attributes and is only called."""

    conv1: nn.Conv2d
    class_embedding: nn.Parameter
    """(D,)."""
    positional_embedding: nn.Parameter
    """(1 + patches, D)."""
    ln_pre: nn.LayerNorm
    transformer: Transformer
    ln_post: nn.LayerNorm
    proj: nn.Parameter | None
    """(D, E)."""


class CLIPModel(Protocol):
    """OpenAI's CLIP: an `nn.Module` with these attributes.

    D is the width of the text tower, E of the joint space, L the context length.
    """

    context_length: int
    vocab_size: int
    token_embedding: nn.Embedding
    """(vocabulary, D)."""
    positional_embedding: nn.Parameter
    """(L, D)."""
    transformer: Transformer
    """The text tower."""
    ln_final: nn.LayerNorm
    text_projection: nn.Parameter
    """(D, E)."""
    visual: Any
    """The image tower: a ViT with a `transformer` of its own, or a ResNet."""
    logit_scale: nn.Parameter

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights that CLIP casts."""

    def encode_text(self, text: Tensor) -> Tensor:
        """Token ids (N, L) to features (N, E)."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Images (B, 3, R, R) to features (B, E)."""

    # Of nn.Module, which a protocol cannot inherit:

    def __call__(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Logits per image (B, N) and per text (N, B)."""

    def state_dict(self) -> dict[str, Any]:
        """All weights by name."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters with their names."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters."""

    def to(self, device: str | torch.device) -> CLIPModel:
        """Move the model, and return it."""

    def eval(self) -> CLIPModel:
        """Turn the model to evaluation, and return it."""

    def requires_grad_(self, requires_grad: bool = True) -> CLIPModel:
        """Freeze or thaw the model, and return it."""


def image_size(model: CLIPModel) -> int:
    """Return the side of the square images `model` reads, in pixels."""
    return model.visual.input_resolution


def is_vit(model: CLIPModel) -> bool:
    """Tell whether the image tower is a Vision Transformer (else it is CLIP's ResNet)."""
    return hasattr(model.visual, "transformer")
