"""The texts of K classes: words in front of the name, behind it or around it, and placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from causalclip.clip.layout import TextLayout, text_layout
from causalclip.clip.openai_backbone import OPENAI_TOKENIZER
from causalclip.clip.protocol import Tokenizer
from causalclip.clip.templates import spoken

Position = Literal["end", "middle", "front"]


@dataclass(frozen=True)
class ClassTokens:
    """The texts of K classes, with placeholders where the learnable context goes."""

    tokens: Tensor
    """(K, L) token ids."""
    positions: Tensor
    """(K, n_ctx) where the context stands in each row."""
    leading: bool = False
    """Whether the context stands at 1..n_ctx in every row, which needs no gather."""

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: str | torch.device) -> ClassTokens:
        """Return the same texts on `device`; these, where they are there."""
        tokens = self.tokens.to(device)
        if tokens is self.tokens:
            return self
        return replace(self, tokens=tokens, positions=self.positions.to(device))

    @cached_property
    def layout_of_words(self) -> TextLayout:
        """How the texts lie without prompts, the placeholders read as words."""
        return text_layout(self.tokens)

    @cached_property
    def layout(self) -> TextLayout:
        """How the texts lie where all classes have the same context."""
        return text_layout(self.tokens, self.positions)

    @cached_property
    def layout_per_class(self) -> TextLayout:
        """How the texts lie where each class has a context of its own."""
        return text_layout(self.tokens, self.positions, per_text=True)


def class_tokens(
    classnames: Sequence[str],
    *,
    n_ctx: int,
    prefix: str = "",
    position: Position = "end",
    template: str = "{}.",
    context_length: int = 77,
    tokenizer: Tokenizer = OPENAI_TOKENIZER,
) -> ClassTokens:
    """Tokenise "<prefix> <name>." for each class and say where the context goes.

    With position `end` the context takes the first `n_ctx` tokens of the prefix (MaPLe keeps four
    words and learns two). `middle` puts half of it in front of the name and half behind, `front`
    all of it behind the name (CoOp, section 3.1). Without a prefix, `n_ctx` placeholders stand in.
    Another `template` puts words around the name: "{}, a type of pet." (TCP's).

    Raises:
        ValueError: no class, a prefix that does not fit `n_ctx` or is read otherwise in front of a
            name, a template without one {}, or not beginning with it where the position is not
            `end`, or a class name too long for the context length; the message names the class.
    """
    if position not in get_args(Position):
        raise ValueError(f"position must be one of {get_args(Position)}, got {position!r}")
    if not classnames:
        raise ValueError("class_tokens needs at least one class name")
    check_count("n_ctx", n_ctx, least=0)
    prefix = spoken(prefix) or " ".join(["X"] * n_ctx)
    _check_prefix(prefix, n_ctx, position, tokenizer)
    _check_template(template, position)
    names, start = [spoken(name) for name in classnames], tokenizer.start
    texts = [f"{prefix} {template.replace('{}', name)}" for name in names]
    for name, text in zip(names, texts, strict=True):
        if (length := tokenizer.count(text)) > context_length:
            raise ValueError(
                f"class name {name!r} with its context takes {length} tokens, more than the "
                f"context length {context_length}"
            )
        _check_read_alike(prefix, name, text, tokenizer)
    tokens = tokenizer(texts, context_length)
    positions = [_context_positions(prefix, name, n_ctx, position, tokenizer) for name in names]
    rows = [_reorder(row, where, start) for row, where in zip(tokens, positions, strict=True)]
    where = torch.tensor(positions, dtype=torch.long)
    return ClassTokens(torch.stack(rows), where, leading=position == "end" and start == 1)


def template_tokens(
    classnames: Sequence[str],
    template: str,
    *,
    context_length: int = 77,
    tokenizer: Tokenizer = OPENAI_TOKENIZER,
) -> ClassTokens:
    """Tokenise a template for each class, without a learnable context.

    Args:
        classnames: K names, in which `_` reads as a space.
        template: text with `{}` for the name.
        context_length: L.
        tokenizer: of the text tower.

    Raises:
        ValueError: a text that is too long for the context length.
    """
    texts = [template.replace("{}", spoken(name)) for name in classnames]
    nowhere = torch.empty(len(texts), 0, dtype=torch.long)
    return ClassTokens(tokenizer(texts, context_length), nowhere, leading=True)


def check_count(what: str, value: int, *, least: int = 1) -> None:
    """Raise ValueError unless `value` is an int of at least `least` (0 or 1)."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "a positive int" if least else "an int of at least 0"
        raise ValueError(f"{what} must be {kind}, got {value!r}")


def _check_prefix(prefix: str, n_ctx: int, position: Position, tokenizer: Tokenizer) -> None:
    found = len(tokenizer.ids(prefix))
    if found < n_ctx or (position != "end" and found != n_ctx):
        need = f"at least {n_ctx}" if position == "end" else f"exactly {n_ctx}"
        raise ValueError(
            f"prefix {prefix!r} must have {need} tokens for n_ctx {n_ctx} and position "
            f"{position!r}, got {found}"
        )


def _check_template(template: str, position: Position) -> None:
    if template.count("{}") != 1 or (position != "end" and not template.startswith("{}")):
        where = "hold" if position == "end" else "begin with"
        raise ValueError(f"template must {where} one {{}} for the class name, got {template!r}")


def _check_read_alike(prefix: str, name: str, text: str, tokenizer: Tokenizer) -> None:
    first = tokenizer.ids(prefix)
    if tokenizer.ids(text)[: len(first)] != first:
        raise ValueError(
            f"the tokenizer reads {prefix!r} otherwise in front of class name {name!r} than alone"
        )


def _context_positions(
    prefix: str, name: str, n_ctx: int, position: Position, tokenizer: Tokenizer
) -> list[int]:
    """Where the context stands: behind the start token, the name in its middle or before it."""
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    start = tokenizer.start
    after = start + before + len(tokenizer.ids(f"{prefix} {name}")) - len(tokenizer.ids(prefix))
    return [*range(start, start + before), *range(after, after + n_ctx - before)]


def _reorder(row: Tensor, positions: list[int], start: int) -> Tensor:
    """Move the context from `start`, where tokenising put it; the rest keeps its order."""
    context = row[start : start + len(positions)]
    rest = torch.cat([row[:start], row[start + len(positions) :]])
    moved = torch.empty_like(row)
    others = torch.ones(len(row), dtype=torch.bool)
    others[positions] = False
    moved[positions], moved[others] = context, rest
    return moved
