"""The interface through which methods use a CLIP, and its implementation for OpenAI's classes.

N texts have L tokens each, images have R x R pixels, features have E dimensions.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.func import functional_call

from causalclip.clip.openai_clip import CLIPModel, byte_pairs, is_vit, padded_tokens, uses_gelu

Args = tuple[Any, ...]  # arguments of a module's forward, as hooks receive them
Kwargs = dict[str, Any]
T = TypeVar("T")
PREFIX = "open_clip:"
"""Prefix of the names of open_clip's models."""


def closest_models(name: str, names: Iterable[str]) -> str:
    """Return the up to three `names` most similar to `name`, comma-separated, or "none"."""
    lower = {other.lower(): other for other in names}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)
    return ", ".join(lower[other] for other in near) or "none"


class Tokenizer(ABC):
    """Converts texts to token ids."""

    start: int  # number of special tokens before the text
    added: int  # number of all special tokens

    @abstractmethod
    def ids(self, text: str) -> list[int]:
        """Return the ids of the tokens of `text`, without special ones."""

    @abstractmethod
    def pad(self, texts: list[str], context_length: int) -> Tensor:
        """Return token ids (N, context_length) with special tokens; truncate longer texts."""

    def count(self, text: str) -> int:
        """Return the number of tokens of `text`, special ones included."""
        return len(self.ids(text)) + self.added

    def __call__(
        self, texts: str | Sequence[str], context_length: int, *, cut: bool = False
    ) -> Tensor:
        """Return token ids (N, context_length), int64; arguments and errors as in `tokenize`."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        for text in () if cut else texts:
            if (length := self.count(text)) > context_length:
                raise ValueError(
                    f"{text!r} takes {length} tokens, more than the context length {context_length}"
                )
        return self.pad(texts, context_length).long()


class OpenAITokenizer(Tokenizer):
    """OpenAI's byte pairs between a start and an end token, padded with zeros."""

    start, added = 1, 2

    def ids(self, text: str) -> list[int]:
        """Return the ids of the tokens of `text`, without special ones."""
        return byte_pairs.encode(text)

    def pad(self, texts: list[str], context_length: int) -> Tensor:
        """Return token ids (N, context_length); truncate longer texts, but keep the end token."""
        return padded_tokens(texts, context_length, truncate=True)


OPENAI_TOKENIZER = OpenAITokenizer()


def tokenize(texts: str | Sequence[str], context_length: int = 77, *, cut: bool = False) -> Tensor:
    """Return OpenAI's token ids (N, context_length) of `texts`, int64, padded with zeros.

    With `cut`, a text that is longer than the context is truncated, but keeps its end token.

    Raises:
        ValueError: a text longer than the context without `cut`; the message quotes it.
    """
    return OPENAI_TOKENIZER(texts, context_length, cut=cut)


@dataclass(frozen=True)
class Tower:
    """Properties of a transformer tower that prompts depend on."""

    width: int  # D
    blocks: Sequence[nn.Module]
    entry: Any
    """Text: the embedding, which returns (N, L, D). Image: the module that receives the tokens
    (B, L, D) before the first block."""
    axis: int  # token axis of a block's input: 1 for (N, L, D), 0 for (L, N, D)
    pools_patches: bool = False
    """Whether more than the class token is used after the last block, so prompts are removed."""
    rotary: bool = False  # whether a block gets rotary positions `rope`, (L', 2 d) for L' patches
    norm: str = "ln_1"  # name of a block's normalisation before its attention


class Backbone(ABC):
    """The interface of a CLIP that methods use."""

    context_length: int  # L
    embed_dim: int  # E
    image_size: int  # R
    tokenizer: Tokenizer
    name: str = "OpenAI's CLIP"
    architecture: str  # what features depend on besides weights; empty for OpenAI's CLIPs

    @abstractmethod
    def text_tower(self) -> Tower:
        """Return the text transformer; raise ValueError if it takes no prompts."""

    @abstractmethod
    def image_tower(self) -> Tower:
        """Return the image transformer; raise ValueError if it takes no prompts."""

    @abstractmethod
    def encode_text_truncated(self, tokens: Tensor) -> Tensor:
        """Return `encode_text` of tokens (N, L), without computing positions that no text uses."""


class OpenAIBackbone(Backbone):
    """A model of OpenAI's classes: blocks on (L, N, D), a causal mask in the text tower."""

    tokenizer = OPENAI_TOKENIZER

    def __init__(self, model: CLIPModel) -> None:
        self.model = model
        self.context_length = model.context_length
        self.embed_dim = model.text_projection.shape[1]
        self.image_size = model.visual.input_resolution
        self.architecture = "gelu" if uses_gelu(model) else ""

    def text_tower(self) -> Tower:
        """Return the text transformer."""
        tower = self.model.transformer
        return Tower(tower.width, tower.resblocks, self.model.token_embedding, axis=0)

    def image_tower(self) -> Tower:
        """Return the Vision Transformer; raise ValueError for a ResNet."""
        if not is_vit(self.model):
            raise ValueError(
                "image prompts need a ViT backbone, got a ResNet: use a method with text prompts "
                "alone"
            )
        visual = self.model.visual
        return Tower(visual.transformer.width, visual.transformer.resblocks, visual.ln_pre, axis=0)

    def encode_text_truncated(self, tokens: Tensor) -> Tensor:
        """Run the model's own forward on the positions up to the end of the longest text."""
        length = int(tokens.argmax(dim=-1).max()) + 1  # the end token has the largest id
        cut = tokens[:, :length]
        replaced = {"positional_embedding": self.model.positional_embedding[:length]}
        with ExitStack() as stack:
            for block in self.model.transformer.resblocks:
                handle = block.attn.register_forward_pre_hook(fit_mask, with_kwargs=True)
                stack.callback(handle.remove)
            return run_with(self.model, replaced, lambda clip: clip.encode_text(cut))


def fit_mask(_module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """Resize an attention's causal mask, if any, to its tokens (L, N, D); a forward pre-hook."""
    mask, length = kwargs.get("attn_mask"), len(args[0])
    if mask is not None:
        kwargs = {**kwargs, "attn_mask": mask.new_full((length, length), float("-inf")).triu(1)}
    return args, kwargs


def run_with(
    clip: Any, replaced: Mapping[str, Tensor], function: Callable[..., T], *args: Any
) -> T:
    """Return `function(clip, *args)` with some of the model's tensors replaced, by name."""
    tensors = {f"clip.{name}": value for name, value in replaced.items()}
    return functional_call(_Call(clip, function), tensors, args, tie_weights=False)


class _Call(nn.Module):
    def __init__(self, clip: Any, function: Callable[..., Any]) -> None:
        super().__init__()
        self.clip, self.function = clip, function

    def forward(self, *args: Any) -> Any:
        return self.function(self.clip, *args)


def backbone_of(model: nn.Module) -> Backbone:
    """Return the interface of a model that `load_clip` returned."""
    return model if isinstance(model, Backbone) else OpenAIBackbone(cast(CLIPModel, model))


def openai_model(model: nn.Module, what: str) -> CLIPModel:
    """Return a model of OpenAI's classes; raise ValueError, naming `what`, for open_clip's."""
    if isinstance(model, Backbone):
        raise ValueError(f"{what} needs a CLIP of OpenAI's classes, got {model.name}")
    return cast(CLIPModel, model)
