"""OpenAI's CLIP as the protocol has it: its blocks see (L, N, D), its text a causal mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor, nn
from torch.func import functional_call

from causalclip.clip.activation import uses_gelu
from causalclip.clip.model import CLIPModel, is_vit
from causalclip.clip.openai_clip import n_tokens, token_ids, tokenize
from causalclip.clip.protocol import Tower


class OpenAITokenizer:
    """OpenAI's byte pairs, between a start and an end token."""

    start = 1

    def ids(self, text: str) -> list[int]:
        """The ids of a text's own tokens."""
        return token_ids(text)

    def count(self, text: str) -> int:
        """How many tokens `text` takes, the start and end tokens among them."""
        return n_tokens(text)

    def __call__(
        self, texts: str | Sequence[str], context_length: int, *, cut: bool = False
    ) -> Tensor:
        """Token ids (N, context_length), padded with zeros.

        Raises:
            ValueError: a text longer than the context without `cut`; the message quotes it.
        """
        return tokenize(texts, context_length, cut=cut)


OPENAI_TOKENIZER = OpenAITokenizer()


class OpenAIBackbone:
    """A model of OpenAI's classes, left as it is."""

    tokenizer = OPENAI_TOKENIZER

    def __init__(self, model: nn.Module) -> None:
        self.model = cast(CLIPModel, model)

    @property
    def context_length(self) -> int:
        """L."""
        return self.model.context_length

    @property
    def embed_dim(self) -> int:
        """E."""
        return self.model.text_projection.shape[1]

    @property
    def image_size(self) -> int:
        """R."""
        return self.model.visual.input_resolution

    @property
    def architecture(self) -> str:
        """The weights say all but an activation that is not OpenAI's."""
        return "gelu" if uses_gelu(self.model) else ""

    def text_tower(self) -> Tower:
        """The text transformer."""
        tower = self.model.transformer
        return Tower(tower.width, tower.resblocks, self.model.token_embedding, axis=0)

    def image_tower(self) -> Tower:
        """The Vision Transformer.

        Raises:
            ValueError: a ResNet.
        """
        if not is_vit(self.model):
            raise ValueError(
                "image prompts need a ViT backbone, got a ResNet: use a method with text prompts "
                "alone"
            )
        visual = self.model.visual
        return Tower(visual.transformer.width, visual.transformer.resblocks, visual.ln_pre, axis=0)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features (B, E) of images (B, 3, R, R), not normalised."""
        return self.model.encode_image(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features (N, E) of tokens (N, L), not normalised."""
        return self.model.encode_text(tokens)

    def encode_text_cut(self, tokens: Tensor) -> Tensor:
        """By the model's own forward, up to the longest text of the batch."""
        length = int(tokens.argmax(dim=-1).max()) + 1  # the end token has the largest id
        positions = {"clip.positional_embedding": self.model.positional_embedding[:length]}
        with _shortened_masks(self.model, length):
            return functional_call(
                _TextSide(self.model), positions, (tokens[:, :length],), tie_weights=False
            )


@contextmanager
def _shortened_masks(model: CLIPModel, length: int) -> Iterator[None]:
    """Cut the causal mask to `length` as each attention receives it; the blocks keep theirs."""

    def shorten(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "attn_mask": kwargs["attn_mask"][:length, :length]}

    with ExitStack() as stack:
        for block in model.transformer.resblocks:
            # In front of what widens the mask again for tokens that enter midway.
            handle = block.attn.register_forward_pre_hook(shorten, with_kwargs=True, prepend=True)
            stack.callback(handle.remove)
        yield


class _TextSide(nn.Module):
    """CLIP's text side as a `forward`, for functional_call."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        return self.clip.encode_text(tokens)
