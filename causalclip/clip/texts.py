"""The texts of K classes: context, class name and template, with the positions of the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from causalclip.clip.interface import OPENAI_TOKENIZER, Tokenizer
from causalclip.clip.layout import TextLayout, send, text_layout

Position = Literal["end", "middle", "front"]


@dataclass(frozen=True)
class ClassTokens:
    """The texts of K classes, with placeholders for the learnable context."""

    tokens: Tensor  # (K, L) token ids
    positions: Tensor  # (K, n_ctx) positions of the context in each row
    leading: bool = False  # whether they are 1..n_ctx in every row, which needs no gather

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: str | torch.device) -> ClassTokens:
        """Return the texts on `device`; this object itself if they are there already."""
        tokens = self.tokens.to(device)
        if tokens is self.tokens:
            return self
        return replace(self, tokens=tokens, positions=self.positions.to(device))

    def sent_to(self, device: torch.device) -> ClassTokens:
        """Return CPU texts on `device`, with their `word_layout`, without blocking the host."""
        sent = replace(
            self, tokens=send(self.tokens, device), positions=send(self.positions, device)
        )
        sent.__dict__["word_layout"] = self.word_layout.sent_to(device)
        return sent

    @cached_property
    def word_layout(self) -> TextLayout:
        """The layout without prompts; placeholders are ordinary words."""
        return text_layout(self.tokens)

    @cached_property
    def layout(self) -> TextLayout:
        """The layout for one context that all classes share."""
        return text_layout(self.tokens, self.positions)

    @cached_property
    def layout_per_class(self) -> TextLayout:
        """The layout for one context per class."""
        return text_layout(self.tokens, self.positions, per_text=True)


def readable(name: str) -> str:
    """Return a class name, or the words of a setting, with `_` replaced by spaces."""
    return name.replace("_", " ")


def check_distinct_classes(classnames: Sequence[str], tokenizer: Tokenizer) -> None:
    """Raise for two class names with the same tokens, such as `Cat` and `cat`.

    Raises:
        ValueError: names both.
    """
    names: dict[tuple[int, ...], str] = {}
    for name in classnames:
        other = names.setdefault(tuple(tokenizer.ids(readable(name))), name)
        if other != name:
            raise ValueError(
                f"class names must differ as texts, but the tokenizer reads {other!r} and {name!r} "
                "alike: rename one of them"
            )


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
    """Tokenise "<prefix> <name>." for each class and locate the context.

    With position `end`, the context is the first `n_ctx` tokens of the prefix (MaPLe keeps four
    words and learns two). `middle` moves the second half of the context after the name, `front`
    moves all of it (CoOp, section 3.1). Without a prefix, the context is `n_ctx` placeholders.
    `template` adds words around the name, such as "{}, a type of pet." (TCP).

    Raises:
        ValueError: no class, a prefix or template that does not fit the position, or a class name
            that is too long or changes the tokens of the prefix.
    """
    if not classnames:
        raise ValueError("class_tokens needs at least one class name")
    check_count("n_ctx", n_ctx, least=0)
    prefix = readable(prefix) or " ".join(["X"] * n_ctx)
    prefix_ids = tokenizer.ids(prefix)
    _check_arguments(prefix, len(prefix_ids), n_ctx, position, template)
    names = [readable(name) for name in classnames]
    texts = [f"{prefix} {template.replace('{}', name)}" for name in names]
    for name, text in zip(names, texts, strict=True):
        if (length := tokenizer.count(text)) > context_length:
            raise ValueError(
                f"class name {name!r} with its context takes {length} tokens, more than the "
                f"context length {context_length}"
            )
        if tokenizer.ids(text)[: len(prefix_ids)] != prefix_ids:
            raise ValueError(
                f"the tokenizer reads {prefix!r} differently before class name {name!r} than alone"
            )
    start = tokenizer.start
    middle = start + {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    positions = []
    for name in names:
        n_name = len(tokenizer.ids(f"{prefix} {name}")) - len(prefix_ids)
        positions.append([*range(start, middle), *range(middle + n_name, start + n_ctx + n_name)])
    tokens = tokenizer(texts, context_length)
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
    """Tokenise a template for each of K classes, without a learnable context."""
    texts = [template.replace("{}", readable(name)) for name in classnames]
    nowhere = torch.empty(len(texts), 0, dtype=torch.long)
    return ClassTokens(tokenizer(texts, context_length), nowhere, leading=True)


def check_count(what: str, value: int, *, least: int = 1) -> None:
    """Raise ValueError unless `value` is an int of at least `least` (0 or 1)."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        kind = "a positive int" if least else "an int of at least 0"
        raise ValueError(f"{what} must be {kind}, got {value!r}")


def _check_arguments(
    prefix: str, length: int, n_ctx: int, position: Position, template: str
) -> None:
    if position not in get_args(Position):
        raise ValueError(f"position must be one of {get_args(Position)}, got {position!r}")
    need, verb = ("at least", "hold") if position == "end" else ("exactly", "begin with")
    if length < n_ctx or (position != "end" and length != n_ctx):
        raise ValueError(
            f"prefix {prefix!r} must have {need} {n_ctx} tokens for position {position!r}, got "
            f"{length}"
        )
    if template.count("{}") != 1 or (position != "end" and not template.startswith("{}")):
        raise ValueError(f"template must {verb} one {{}} for the class name, got {template!r}")


def _reorder(row: Tensor, positions: list[int], start: int) -> Tensor:
    """Move the context tokens from `start` to `positions`; other tokens keep their order."""
    end, others = start + len(positions), torch.ones(len(row), dtype=torch.bool)
    others[positions] = False
    moved = torch.empty_like(row)
    moved[positions], moved[others] = row[start:end], torch.cat([row[:start], row[end:]])
    return moved
