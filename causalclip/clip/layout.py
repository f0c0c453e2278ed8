"""A packed layout of N texts: their common start once, and no padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


class LengthGroup(NamedTuple):
    """Consecutive texts of equal length."""

    texts: int
    length: int  # of each text after the shared start


@dataclass(frozen=True)
class TextLayout:
    """N texts as one row of S tokens: the P tokens they all begin with, then each text's own.

    Under the causal mask a token's hidden state does not depend on later tokens. So a common start
    has the same states in all texts and is computed once, and tokens after an end token are left
    out. Texts are sorted by length, so that the n texts of length l are one batch (n, l), which
    attention processes without padding.
    """

    ids: Tensor  # (S,) token ids; 0 where a prompt goes
    positions: Tensor  # (S,) position of each token in its text, for the positional embedding
    prompted: Tensor  # (R,) indices of the prompts among the S tokens
    rows: Tensor  # (R,) row of the prompt table for each prompt
    ends: Tensor  # (N,) index of each text's end token, in sorted order
    unsorted: Tensor  # (N,) sorted index of each text, in the original order
    n_shared: int  # P; less than the length of the shortest text, as end tokens are not shared
    groups: tuple[LengthGroup, ...]

    def sent_to(self, device: torch.device) -> TextLayout:
        """Return a copy of a CPU layout on `device`, without blocking the host."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: send(value, device) for name, value in tensors.items()})

    def spread_to(self, other: TextLayout) -> Tensor:
        """Return the index (S',) in this layout of each token of `other`, which shares less."""
        token = torch.arange(len(other.ids), device=other.ends.device)
        text = torch.searchsorted(other.ends, token)
        own = self.ends[text] - (other.ends[text] - token)  # at the same distance from the end
        return torch.where(other.positions < self.n_shared, other.positions, own)

    def shifted(self, n: int) -> TextLayout:
        """Return the layout with n tokens inserted in the common start; `ids` stay as they are."""
        return replace(self, n_shared=self.n_shared + n, ends=self.ends + n)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor on `device`; a copy to a GPU does not block the host."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def text_layout(
    tokens: Tensor, positions: Tensor | None = None, *, per_text: bool = False
) -> TextLayout:
    """Return the layout of texts (N, L).

    The end token has the largest id of its row. Row k of `positions` (N, n) lists the positions in
    text k that prompts 0..n-1 replace. The prompt table has n rows, or N * n with `per_text`, where
    each text has its own prompts, so that the common start ends before them.
    """
    device, tokens = tokens.device, tokens.cpu()
    codes = _codes(tokens, positions, per_text=per_text)
    lengths = tokens.argmax(dim=-1) + 1
    shared = _common_start(codes, lengths)
    order = lengths.argsort(stable=True)
    columns = torch.arange(tokens.shape[1])
    own = (columns >= shared) & (columns < lengths[order].unsqueeze(1))  # (N, L)
    packed = torch.cat([codes[0, :shared], codes[order][own]])
    groups = zip(*lengths[order].unique_consecutive(return_counts=True), strict=True)
    prompted = (packed < 0).nonzero().flatten()
    tensors = {
        "ids": packed.clamp(min=0),
        "positions": torch.cat([columns[:shared], own.nonzero()[:, 1]]),
        "prompted": prompted,
        "rows": -1 - packed[prompted],
        "ends": shared + (lengths[order] - shared).cumsum(0) - 1,
        "unsorted": order.argsort(),
    }
    return TextLayout(
        **{name: tensor.to(device) for name, tensor in tensors.items()},
        n_shared=shared,
        groups=tuple(LengthGroup(int(count), int(length) - shared) for length, count in groups),
    )


def _codes(tokens: Tensor, positions: Tensor | None, *, per_text: bool) -> Tensor:
    """Return one code per embedding (N, L): the token id, or -1 - r for row r of the table."""
    if positions is None or not positions.numel():
        return tokens
    rows = torch.arange(positions.numel()).view(positions.shape)
    rows = rows if per_text else rows[:1].expand_as(positions)
    return tokens.scatter(1, positions.cpu(), -1 - rows)


def _common_start(codes: Tensor, lengths: Tensor) -> int:
    differ = (codes != codes[:1]).any(dim=0).nonzero().flatten()
    common = int(differ[0]) if len(differ) else codes.shape[1]
    return min(common, int(lengths.min()) - 1)
