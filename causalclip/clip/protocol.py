"""What the trainers and the mathematics need of a CLIP, whoever wrote it.

OpenAI's is in openai_backbone.py, open_clip's in open_clip_backbone.py; `backbone_of` in kinds.py
answers for either. Texts are N rows of L tokens, images R by R pixels, features E numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


class Tokenizer(Protocol):
    """Texts to token ids."""

    @property
    def start(self) -> int:
        """How many tokens of its own stand in front of a text's."""
        ...

    def ids(self, text: str) -> list[int]:
        """The ids of a text's own tokens."""
        ...

    def count(self, text: str) -> int:
        """How many tokens `text` takes, those that the tokenizer adds among them."""
        ...

    def __call__(
        self, texts: str | Sequence[str], context_length: int, *, cut: bool = False
    ) -> Tensor:
        """Token ids (N, context_length); with `cut` a text that is too long loses its last ones.

        Raises:
            ValueError: a text longer than the context without `cut`; the message quotes it.
        """
        ...


@dataclass(frozen=True)
class Tower:
    """What prompts need of a transformer tower of D numbers a token."""

    width: int
    """D."""
    blocks: Sequence[nn.Module]
    entry: Any
    """Text: the embedding, which gives (N, L, D). Image: what gets (B, L, D) before any block."""
    axis: int
    """Of the tokens in what a block gets: 1 for (N, L, D), 0 for (L, N, D)."""
    reads_all: bool = False
    """Whether more is read behind the last block than the class token: prompts must go there."""
    rotary: bool = False
    """Whether a block gets rotary positions as `rope`, (L', 2 d) for the L' patches."""
    norm: str = "ln_1"
    """What its blocks call the normalisation in front of their attention."""

    @property
    def layers(self) -> int:
        """The number of blocks."""
        return len(self.blocks)


class Backbone(Protocol):
    """A CLIP as the methods see it."""

    @property
    def context_length(self) -> int:
        """L."""
        ...

    @property
    def embed_dim(self) -> int:
        """E."""
        ...

    @property
    def image_size(self) -> int:
        """R."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The one its text tower learned with."""
        ...

    @property
    def architecture(self) -> str:
        """What its features follow from and its weights do not say; empty for OpenAI's own."""
        ...

    def text_tower(self) -> Tower:
        """Where text prompts go.

        Raises:
            ValueError: it cannot take any; says why.
        """
        ...

    def image_tower(self) -> Tower:
        """Where image prompts go.

        Raises:
            ValueError: it cannot take any; says why.
        """
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Features (B, E) of images (B, 3, R, R), not normalised."""
        ...

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features (N, E) of tokens (N, L), not normalised."""
        ...

    def encode_text_cut(self, tokens: Tensor) -> Tensor:
        """As `encode_text`, without the tokens that no text of the batch reads."""
        ...
