"""Which tokens of N texts are computed, and where they lie: a common start once, no padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """Texts of one length, one behind the other."""

    texts: int
    length: int
    """Tokens of each text behind the shared start."""


@dataclass(frozen=True)
class TextLayout:
    """N texts as one row of S tokens: the P tokens they all begin with, then what each has alone.

    Under the causal mask a token's hidden state depends on the tokens in front of it only. So a
    common start has the same states in all texts, and is computed once; what stands behind an end
    token is never read, and is left out. The texts are sorted by length, so that those of one
    length are a plain block (n, l) that attention can see without padding.
    """

    ids: Tensor
    """(S,) token ids; 0 where a prompt goes."""
    places: Tensor
    """(S,) position of each token in its text, for the positional embedding."""
    prompted: Tensor
    """(R,) which of the S tokens are prompts."""
    rows: Tensor
    """(R,) which row of the prompt table each of them takes."""
    ends: Tensor
    """(N,) the end token of each text, in the sorted order."""
    unsorted: Tensor
    """(N,) where each text, in the order it was given, stands among the sorted ones."""
    n_shared: int
    """P, at least one token less than the shortest text: its end token is its own."""
    runs: tuple[Run, ...]
    """The sorted texts by length."""

    def spread(self, other: TextLayout) -> Tensor:
        """(S',) where the tokens of a layout of the same texts that shares less stand in this."""
        token = torch.arange(len(other.ids), device=other.ends.device)
        text = torch.searchsorted(other.ends, token)
        own = self.ends[text] - (other.ends[text] - token)  # as far from the end token
        return torch.where(other.places < self.n_shared, other.places, own)

    def to(self, device: str | torch.device) -> TextLayout:
        """Return the same layout on `device`."""
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return TextLayout(**{**vars(self), **tensors})

    def behind(self, n: int) -> TextLayout:
        """How the same texts lie behind n more tokens, the same for all, that follow the first.

        For blocks alone: what is read in front of them, such as `ids`, stays.
        """
        return replace(self, n_shared=self.n_shared + n, ends=self.ends + n)


def text_layout(
    tokens: Tensor, positions: Tensor | None = None, *, per_text: bool = False
) -> TextLayout:
    """Read from the tokens (N, L) what the texts share and how long each is.

    Args:
        tokens: token ids; the end token has the largest id of its row.
        positions: (N, n) where prompts replace tokens: row k of `positions` takes the prompts
            0..n-1 in order. The prompt table then has n rows, or N * n with `per_text`.
        per_text: each text has prompts of its own, so that nothing behind the first is shared.
    """
    device, tokens = tokens.device, tokens.cpu()
    codes = _codes(tokens, positions, per_text=per_text)
    lengths = tokens.argmax(dim=-1) + 1
    shared = _common_start(codes, lengths)
    order = lengths.argsort(stable=True)
    columns = torch.arange(tokens.shape[1])
    own = (columns >= shared) & (columns < lengths[order].unsqueeze(1))  # (N, L)
    packed = torch.cat([codes[0, :shared], codes[order][own]])
    runs = zip(*lengths[order].unique_consecutive(return_counts=True), strict=True)
    prompted = (packed < 0).nonzero().flatten()
    return TextLayout(
        ids=packed.clamp(min=0),
        places=torch.cat([columns[:shared], own.nonzero()[:, 1]]),
        prompted=prompted,
        rows=-1 - packed[prompted],
        ends=shared + (lengths[order] - shared).cumsum(0) - 1,
        unsorted=order.argsort(),
        n_shared=shared,
        runs=tuple(Run(int(count), int(length) - shared) for length, count in runs),
    ).to(device)


def _codes(tokens: Tensor, positions: Tensor | None, *, per_text: bool) -> Tensor:
    """(N, L): the token id, or -1 - r where row r of the prompt table goes.

    Equal codes mean equal embeddings.
    """
    if positions is None or not positions.numel():
        return tokens
    rows = torch.arange(positions.numel()).view(positions.shape)
    rows = rows if per_text else rows[:1].expand_as(positions)
    return tokens.scatter(1, positions.cpu(), -1 - rows)


def _common_start(codes: Tensor, lengths: Tensor) -> int:
    """How many tokens all texts begin with, the end token of the shortest left to itself."""
    differ = (codes != codes[:1]).any(dim=0).nonzero().flatten()
    common = int(differ[0]) if len(differ) else codes.shape[1]
    return min(common, int(lengths.min()) - 1)
