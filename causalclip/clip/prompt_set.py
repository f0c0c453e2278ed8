"""Additions to the towers of a CLIP: prompts, inserted tokens, adapters; and their checks.

Inserted tokens are from MMRL (arXiv 2503.08497, section 3.2) and MMRL++ (arXiv 2505.10088),
adapters from MMA (CVPR 2024, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import torch
from torch import Tensor, nn

from causalclip.clip.interface import Tower, backbone_of, openai_model
from causalclip.clip.openai_clip import CLIPModel

Adapter = Callable[[Tensor], Tensor]  # maps tokens (..., D) after a block's `ln_1`


@dataclass(frozen=True, eq=False)
class Additions:
    """Additions to the blocks of one tower, which are counted from 0."""

    tokens: Mapping[int, Tensor] = field(default_factory=dict)
    """Tokens by block, (n, D), or (N, n, D) with one set per sample. The first are inserted after
    the class or start token, later ones replace them; they are removed after the last block."""
    adapters: Mapping[int, Adapter] = field(default_factory=dict)
    """Adapters by block: the output y becomes y + adapter(ln_1(x)), token by token."""
    new_share: float = 1.0
    """Weight of the new tokens in later blocks; the old tokens have the weight 1 - `new_share`."""

    def __bool__(self) -> bool:
        return bool(self.tokens or self.adapters)

    @property
    def first(self) -> int:
        """The first block with tokens."""
        return min(self.tokens)

    @property
    def start(self) -> int:
        """The first block with tokens or an adapter."""
        return min((*self.tokens, *self.adapters))

    @property
    def n_tokens(self) -> int:
        """Number n of tokens per block; 0 without tokens."""
        return self.tokens[self.first].shape[-2] if self.tokens else 0

    def insert_tokens(self, x: Tensor, block: int, *, axis: int = 1) -> Tensor:
        """Insert a block's tokens into its input x, (N, L, D), or (L, N, D) with `axis` 0."""
        if block not in self.tokens:
            return x
        old = 0 if block == self.first else self.n_tokens
        tokens = per_sample(self.tokens[block], x, axis=axis)
        if old and self.new_share != 1:
            before = x.narrow(axis, 1, old)
            tokens = self.new_share * tokens + (1 - self.new_share) * before
        rest = x.narrow(axis, 1 + old, x.shape[axis] - 1 - old)
        return torch.cat([x.narrow(axis, 0, 1), tokens, rest], dim=axis)

    def adapt(self, output: Tensor, block: int, x: Tensor, ln_1: nn.Module) -> Tensor:
        """Add to a block's output its adapter's output, if it has one, for the block's input x."""
        if block not in self.adapters:
            return output
        return output + self.adapters[block](ln_1(x)).to(output.dtype)


NO_ADDITIONS = Additions()
IMAGE_PROJECTION = "visual.proj"  # of a ViT of OpenAI's classes
prompted_models: WeakSet[CLIPModel] = WeakSet()


@dataclass(frozen=True)
class PromptSet:
    """Prompts of both towers, one tensor per depth: (n, D), or with a leading M, B or K axis.

    None leaves a text block as it is. `injection.prompted` defines the depths.
    """

    text: tuple[Tensor | None, ...] = ()
    image: tuple[Tensor, ...] = ()
    text_additions: Additions = NO_ADDITIONS
    image_additions: Additions = NO_ADDITIONS
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    """Changes to add to the CLIP's weights, by their names in its state dict. With M sets, only the
    image projection may have changes, (M, D, E)."""

    @property
    def touches_image_tower(self) -> bool:
        """Whether the set may change image features."""
        return bool(self.image or self.image_additions or self.weights)


def per_sample(tokens: Tensor, x: Tensor, *, axis: int) -> Tensor:
    """Expand tokens (n, D) or (N, n, D) to the samples of `x`, in its axis order and dtype."""
    samples = x.shape[1 - axis]
    check_samples(tokens, samples)
    tokens = tokens.to(x.dtype).expand(samples, -1, -1)
    return tokens if axis == 1 else tokens.transpose(0, 1)


def check_samples(tokens: Tensor, samples: int) -> None:
    """Raise ValueError if tokens (N, n, D) are not one set per sample."""
    if tokens.dim() == 3 and tokens.shape[0] != samples:
        raise ValueError(
            f"per-sample prompts must match the batch of {samples}, got {tokens.shape[0]} sets"
        )


def check_model(model: object) -> None:
    """Raise ValueError for a model under nn.DataParallel, where prompts do not work."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    # Replicas are shallow copies that share one dictionary of hooks across threads.
    if isinstance(model, parallel) or getattr(model, "_is_replica", False):
        raise ValueError(
            "prompts do not work under nn.DataParallel: run one process per GPU (torchrun, with "
            "only the prompt module in DistributedDataParallel) and pass the bare CLIP"
        )


def check_positions(prompts: Sequence[Tensor | None], positions: Tensor | None) -> None:
    """Raise ValueError unless there is one position, (n,) or (N, n), per text prompt token."""
    first = prompts[0] if prompts else None
    if first is not None and positions is not None and positions.shape[-1] != first.shape[-2]:
        raise ValueError(
            f"text_positions must name {first.shape[-2]} positions, one per prompt token, "
            f"got {positions.shape[-1]}"
        )


def checked_tower(
    model: CLIPModel, kind: str, prompts: Sequence[Tensor | None], additions: Additions
) -> Tower:
    """Return the tower, after checking that prompts and additions fit it.

    The `kind` is text or image; prompts are (n, D) or (N, n, D) per depth, or None.

    Raises:
        ValueError: a shape or depth that the tower does not take.
        RuntimeError: a model that is prompted already.
    """
    if model in prompted_models:
        raise RuntimeError("this model is prompted already; leave the outer prompted() first")
    if additions.tokens:
        openai_model(model, "a token that enters midway")
    backbone = backbone_of(model)
    tower = backbone.text_tower() if kind == "text" else backbone.image_tower()
    layers = len(tower.blocks)
    for block in (*additions.tokens, *additions.adapters):
        if not 0 <= block < layers:
            raise ValueError(
                f"additions must be to blocks 0 to {layers - 1} of the {kind} tower, got {block}"
            )
    if prompts and additions.tokens:
        raise ValueError(f"{kind} prompts and tokens that enter midway do not go together")
    if len(prompts) > layers:
        raise ValueError(
            f"{kind} prompt depth must be at most {layers}, the depth of the {kind} tower, "
            f"got {len(prompts)}"
        )
    if prompts and prompts[0] is None:
        raise ValueError(f"{kind}[0] must be prompts: they make the places of the deeper ones")
    given = {f"{kind}[{i}]": prompt for i, prompt in enumerate(prompts) if prompt is not None}
    _check_tokens(f"{kind} prompts of all depths", given, tower.width)
    inserted = {f"{kind} tokens of block {i}": tokens for i, tokens in additions.tokens.items()}
    _check_tokens(f"{kind} tokens of all blocks", inserted, tower.width)
    return tower


def _check_tokens(what: str, tokens: Mapping[str, Tensor], width: int) -> None:
    for name, value in tokens.items():
        n, last = value.shape[-2:] if value.dim() in (2, 3) else (0, 0)
        if n < 1 or last != width:
            raise ValueError(
                f"{name} must have shape (n, {width}) or (N, n, {width}) with n >= 1, "
                f"got {tuple(value.shape)}"
            )
    if len({value.shape[-2] for value in tokens.values()}) > 1:
        raise ValueError(f"{what} must have the same number of tokens")
