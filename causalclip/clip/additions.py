"""What blocks of a tower get beside their own: tokens that enter midway, and adapters.

Tokens as in MMRL (arXiv 2503.08497, section 3.2), adapters as in MMA (CVPR 2024, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from causalclip.clip.protocol import Tower

Args = tuple[Any, ...]  # of a module's forward, as its hooks get them
Adapter = Callable[[Tensor], Tensor]
"""From tokens (..., D) behind a block's `ln_1` to what is added to the same tokens."""


@dataclass(frozen=True, eq=False)
class Additions:
    """Additions to the blocks of one tower, which are counted from 0."""

    tokens: Mapping[int, Tensor] = field(default_factory=dict)
    """(n, D), or (N, n, D) with one set a sample: those of the first block named enter behind the
    class or start token, those of later blocks take their place; they leave behind the last."""
    adapters: Mapping[int, Adapter] = field(default_factory=dict)
    """y + adapter(ln_1(x)) in place of a block's y, token by token."""

    def __bool__(self) -> bool:
        return bool(self.tokens or self.adapters)

    @property
    def first(self) -> int:
        """The block whose tokens enter; the others' take their place."""
        return min(self.tokens)

    @property
    def n_tokens(self) -> int:
        """n; 0 where no tokens enter."""
        return self.tokens[self.first].shape[-2] if self.tokens else 0

    @property
    def per_sample(self) -> bool:
        """Whether each sample has tokens of its own."""
        return any(tokens.dim() == 3 for tokens in self.tokens.values())

    def entered(self, x: Tensor, block: int, *, axis: int = 1) -> Tensor:
        """Give what enters a block its tokens, if it has some.

        Args:
            x: (N, L, D), or (L, N, D) with `axis` 0.
            block: the number of the block.
            axis: where the tokens of `x` are.

        Raises:
            ValueError: tokens for another number of samples.
        """
        if block not in self.tokens:
            return x
        old = 0 if block == self.first else self.n_tokens
        tokens, samples = self.tokens[block].to(x.dtype), x.shape[1 - axis]
        if tokens.dim() == 3 and len(tokens) != samples:
            raise ValueError(
                f"per-sample tokens must match the batch of {samples}, got {len(tokens)} sets"
            )
        tokens = tokens.expand(samples, -1, -1)
        tokens = tokens if axis == 1 else tokens.transpose(0, 1)
        rest = x.narrow(axis, 1 + old, x.shape[axis] - 1 - old)
        return torch.cat([x.narrow(axis, 0, 1), tokens, rest], dim=axis)

    def adapted(self, output: Tensor, block: int, entered: Tensor, ln_1: nn.Module) -> Tensor:
        """Add what its adapter makes of the tokens (..., D) that entered a block to its output."""
        if block not in self.adapters:
            return output
        return output + self.adapters[block](ln_1(entered)).to(output.dtype)


NOTHING = Additions()


def check_additions(kind: str, additions: Additions, tower: Tower) -> None:
    """Refuse what the blocks of a tower cannot get.

    Raises:
        ValueError: a block that is not there, tokens of another width or of several numbers.
    """
    for block in (*additions.tokens, *additions.adapters):
        if not 0 <= block < tower.layers:
            raise ValueError(
                f"additions must be to blocks 0 to {tower.layers - 1} of the {kind} tower, "
                f"got {block}"
            )
    for block, tokens in additions.tokens.items():
        if tokens.dim() not in (2, 3) or tokens.shape[-1] != tower.width or not tokens.shape[-2]:
            raise ValueError(
                f"{kind} tokens of block {block} must have shape (n, {tower.width}) or "
                f"(N, n, {tower.width}) with n >= 1, got {tuple(tokens.shape)}"
            )
    if len({tokens.shape[-2] for tokens in additions.tokens.values()}) > 1:
        raise ValueError(f"{kind} tokens of all blocks must be of the same number")


@contextmanager
def hooked(tower: Tower, additions: Additions) -> Iterator[list[Tensor]]:
    """Run a tower with additions while the context lasts; with tokens one of (L, N, D).

    The tokens (n, N, D) that entered midway leave into the list that the context gives; it holds
    those of the last forward.
    """
    left: list[Tensor] = []
    n = additions.n_tokens

    def leave(_module: nn.Module, _args: Args, x: Tensor) -> Tensor:
        left[:] = [x[1 : 1 + n]]
        return torch.cat([x[:1], x[1 + n :]]) if n else x

    with ExitStack() as stack:
        for i, block in enumerate(tower.blocks):
            for handle in _hook_block(block, additions, i, tower.norm):
                stack.callback(handle.remove)
        if additions:
            stack.callback(tower.blocks[-1].register_forward_hook(leave).remove)
        yield left


def _hook_block(block: Any, additions: Additions, i: int, norm: str) -> Iterator[Any]:
    def enter(_module: nn.Module, args: Args) -> Args:
        return (additions.entered(args[0], i, axis=0), *args[1:])

    def adapt(_module: nn.Module, args: Args, output: Tensor) -> Tensor:
        return additions.adapted(output, i, args[0], getattr(block, norm))

    if i in additions.tokens:
        yield block.register_forward_pre_hook(enter)
    if additions.tokens and i >= additions.first:
        yield block.attn.register_forward_pre_hook(_widen_mask, with_kwargs=True)
    if i in additions.adapters:
        yield block.register_forward_hook(adapt)


def _widen_mask(
    _module: nn.Module, args: Args, kwargs: dict[str, Any]
) -> tuple[Args, dict[str, Any]]:
    """A causal mask, where there is one, for as many tokens as there are now."""
    mask, length = kwargs.get("attn_mask"), len(args[0])
    if mask is not None:
        wide = mask.new_full((length, length), float("-inf")).triu(1)
        kwargs = {**kwargs, "attn_mask": wide}
    return args, kwargs
