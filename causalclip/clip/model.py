"""What the mathematics needs of a CLIP, as a type; and whether it is OpenAI's, unchanged."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class CLIPModel(Protocol):
    """OpenAI's CLIP, as an `nn.Module` with these attributes.

    D is the width of the text tower, E of the joint space, L the context length.
    """

    context_length: int
    vocab_size: int
    token_embedding: nn.Embedding
    """(vocabulary, D)."""
    positional_embedding: nn.Parameter
    """(L, D)."""
    transformer: Any
    """The text tower: `width`, `layers` and `resblocks`."""
    ln_final: nn.LayerNorm
    text_projection: nn.Parameter
    """(D, E)."""
    visual: Any
    """The image tower: a ViT with a `transformer` like the text tower's, or a ResNet."""
    logit_scale: nn.Parameter

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights that CLIP casts."""

    def encode_text(self, text: Tensor) -> Tensor:
        """Token ids (N, L) to features (N, E)."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Images (B, 3, R, R) to features (B, E)."""
