"""open_clip's models as the protocol has them: everything is read from the model, none guessed.

Their blocks see (N, L, D). Text has a causal mask or none, is pooled at its end token, at the last
position or at a class token behind it; image towers are open_clip's own, timm's, or no ViT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from causalclip.clip.protocol import Tower

POOLED_AT_END = ("argmax", "eos")


class OpenCLIPTokenizer:
    """A tokenizer of open_clip's; what it adds to a text is seen in the rows it gives."""

    def __init__(self, tokenizer: Any) -> None:
        """Take one of open_clip's tokenizers.

        Raises:
            ValueError: its rows do not hold the ids that it encodes a text to.
        """
        self.tokenizer = tokenizer
        full = self._rows(["a" + 100 * " a"], 32)[0]  # cut to its length: all but a few are "a"
        own = torch.isin(full, torch.tensor(self.ids("a a"))).nonzero().flatten()
        if not len(own):
            raise ValueError(f"{type(tokenizer).__name__} gives rows without the ids it encodes")
        self.start = int(own[0])
        self.added = len(full) - len(own)

    def ids(self, text: str) -> list[int]:
        """The ids of a text's own tokens."""
        if hasattr(self.tokenizer, "encode"):
            return list(self.tokenizer.encode(text))
        clean = getattr(self.tokenizer, "clean_fn", None) or _canonical
        return list(self.tokenizer.tokenizer(clean(text), add_special_tokens=False).input_ids)

    def count(self, text: str) -> int:
        """How many tokens `text` takes, those that the tokenizer adds among them."""
        return len(self.ids(text)) + self.added

    def __call__(
        self, texts: str | Sequence[str], context_length: int, *, cut: bool = False
    ) -> Tensor:
        """Token ids (N, context_length), padded as the model learned it.

        Raises:
            ValueError: a text longer than the context without `cut`; the message quotes it.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        for text in () if cut else texts:
            if (length := self.count(text)) > context_length:
                raise ValueError(
                    f"{text!r} takes {length} tokens, more than the context length {context_length}"
                )
        return self._rows(texts, context_length)

    def _rows(self, texts: list[str], context_length: int) -> Tensor:
        return self.tokenizer(texts, context_length=context_length).long()


def _canonical(text: str) -> str:
    from open_clip.tokenizer import basic_clean, canonicalize_text  # as SigLipTokenizer does

    return canonicalize_text(basic_clean(text))


class OpenCLIP(nn.Module):
    """A model of open_clip's, left as it is, with its tokenizer."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: OpenCLIPTokenizer,
        *,
        name: str,
        embed_dim: int,
        architecture: str = "",
        input_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Wrap a model.

        Args:
            model: a CLIP, CustomTextCLIP or CoCa of open_clip's.
            tokenizer: the one its text tower learned with.
            name: what errors call it.
            embed_dim: E.
            architecture: its configuration, as text.
            input_dtype: of the images that its image tower reads.

        Raises:
            ValueError: a model of images that are not square.
        """
        super().__init__()
        self.model: Any = model
        self.tokenizer, self.name, self.embed_dim = tokenizer, name, embed_dim
        self.architecture, self.input_dtype = architecture, input_dtype
        size = self.model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise ValueError(f"{name} reads images of {height} x {width} pixels, not square ones")
        self.image_size = int(height)

    @property
    def _text(self) -> Any:
        """The text tower: a module of its own, or the parts that lie in open_clip's CLIP."""
        return getattr(self.model, "text", self.model)

    @property
    def context_length(self) -> int:
        """L; where the text tower is another library's, its tokenizer says it."""
        own = hasattr(self._text, "token_embedding")
        return self._text.context_length if own else self.tokenizer.tokenizer.context_length

    @property
    def logit_scale(self) -> Tensor:
        """The logarithm of the scale of the cosines; its bias moves no softmax and is left out."""
        return self.model.logit_scale.squeeze()

    def text_tower(self) -> Tower:
        """open_clip's text transformer.

        Raises:
            ValueError: a text tower of another library.
        """
        text = self._text
        if not hasattr(text, "token_embedding"):
            raise ValueError(
                f"text prompts need a text tower of open_clip's own, {self.name} has a "
                f"{type(text).__name__}: use a method without text prompts"
            )
        tower = text.transformer
        axis = 1 if tower.batch_first else 0
        return Tower(tower.width, tower.resblocks, text.token_embedding, axis=axis)

    def image_tower(self) -> Tower:
        """open_clip's Vision Transformer, or timm's; prompts go before pooling.

        Raises:
            ValueError: a tower that has no row of tokens to append prompts to.
        """
        visual = self.model.visual
        if hasattr(visual, "transformer"):
            tower = visual.transformer
            axis = 1 if tower.batch_first else 0
            return Tower(tower.width, tower.resblocks, visual.ln_pre, axis=axis, reads_all=True)
        trunk = getattr(visual, "trunk", visual)
        if (rotary := _rotary(trunk)) is None:
            raise ValueError(
                f"image prompts need a ViT backbone, {self.name} has a {type(trunk).__name__}: use "
                "a method with text prompts alone"
            )
        tower = Tower(trunk.embed_dim, trunk.blocks, trunk.norm_pre, axis=1, norm="norm1")
        return replace(tower, reads_all=True, rotary=rotary)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features (B, E) of images (B, 3, R, R), not normalised."""
        return self.model.encode_image(images.to(self.input_dtype), normalize=False)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features (N, E) of tokens (N, L), not normalised."""
        return self.model.encode_text(tokens, normalize=False)

    def encode_text_cut(self, tokens: Tensor) -> Tensor:
        """Up to the longest text, under a causal mask and pooled at the end; else all of it."""
        ends = self._ends(tokens)
        if ends is None:
            return self.encode_text(tokens)
        length, text = int(ends.max()) + 1, self._text
        where = "clip.model." if text is self.model else "clip.model.text."
        shorter = {
            f"{where}attn_mask": text.attn_mask[:length, :length],
            f"{where}positional_embedding": text.positional_embedding[:length],
        }
        return functional_call(_TextSide(self), shorter, (tokens[:, :length],), tie_weights=False)

    def _ends(self, tokens: Tensor) -> Tensor | None:
        """Where each text (N, L) ends; None where what stands behind its end is read as well."""
        text = self._text
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", ""))
        masked = getattr(text, "attn_mask", None) is not None
        if not masked or pool not in POOLED_AT_END or getattr(text, "cls_emb", None) is not None:
            return None
        if pool == "argmax":
            return tokens.argmax(dim=-1)
        eos = text.text_eos_id if hasattr(text, "text_eos_id") else text.eos_id
        found = tokens == eos
        return found.int().argmax(dim=-1) if bool(found.any(dim=-1).all()) else None


def _rotary(trunk: nn.Module) -> bool | None:
    """Whether a tower of timm's turns its patches by position; None where it is no plain ViT."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(trunk, VisionTransformer):
        plain = type(trunk).forward_features is VisionTransformer.forward_features
        return False if plain else None
    if isinstance(trunk, Eva) and type(trunk).forward_features is Eva.forward_features:
        return None if getattr(trunk, "rope_mixed", False) else trunk.rope is not None
    return None


class _TextSide(nn.Module):
    """The text side as a `forward`, for functional_call."""

    def __init__(self, clip: OpenCLIP) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        return self.clip.encode_text(tokens)
