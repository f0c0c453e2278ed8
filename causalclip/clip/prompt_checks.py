"""What prompts and additions ask of a CLIP; what does not fit is refused before any work."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from causalclip.clip.additions import Additions, check_additions
from causalclip.clip.kinds import backbone_of, openai_model
from causalclip.clip.model import CLIPModel
from causalclip.clip.protocol import Tower


def check_model(model: object) -> None:
    """Refuse a model whose forward is not ours to enter.

    Raises:
        ValueError: a model under nn.DataParallel.
    """
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    # Replicas are shallow copies that share one dictionary of hooks across threads.
    if isinstance(model, parallel) or getattr(model, "_is_replica", False):
        raise ValueError(
            "prompts do not work under nn.DataParallel: run one process per GPU (torchrun, with "
            "only the prompt module in DistributedDataParallel) and pass the bare CLIP"
        )


def tower_for(model: CLIPModel, kind: str, additions: Additions) -> Tower:
    """The tower that gets prompts or additions; tokens ask more of it than the protocol has.

    Args:
        model: the CLIP.
        kind: text or image.
        additions: to its blocks.

    Raises:
        ValueError: a tower that takes none of them; says why.
    """
    if additions.tokens:
        openai_model(model, "a token that enters midway")
    backbone = backbone_of(model)
    return backbone.text_tower() if kind == "text" else backbone.image_tower()


def check_prompts(
    kind: str, prompts: Sequence[Tensor | None], tower: Tower, additions: Additions
) -> None:
    """Refuse prompts and additions that a tower does not take.

    Args:
        kind: text or image.
        prompts: one tensor a depth, (n, D) or (N, n, D); None leaves a text block as it is.
        tower: what gets them.
        additions: to its blocks.

    Raises:
        ValueError: names what does not fit, what is allowed and what came.
    """
    check_additions(kind, additions, tower)
    if prompts and additions.tokens:
        raise ValueError(f"{kind} prompts and tokens that enter midway do not go together")
    if len(prompts) > tower.layers:
        raise ValueError(
            f"{kind} prompt depth must be at most {tower.layers}, the depth of the {kind} tower, "
            f"got {len(prompts)}"
        )
    if prompts and prompts[0] is None:
        raise ValueError(f"{kind}[0] must be prompts: they make the places of the deeper ones")
    given = {i: prompt for i, prompt in enumerate(prompts) if prompt is not None}
    for i, prompt in given.items():
        n, width = prompt.shape[-2:] if prompt.dim() in (2, 3) else (0, 0)
        if n < 1 or width != tower.width:
            raise ValueError(
                f"{kind}[{i}] must have shape (n, {tower.width}) or (N, n, {tower.width}) with "
                f"n >= 1, got {tuple(prompt.shape)}"
            )
    if len({prompt.shape[-2] for prompt in given.values()}) > 1:
        raise ValueError(f"{kind} prompts of all depths must have the same number of tokens")


def check_sets(prompt: Tensor, samples: int) -> None:
    """Refuse prompts (N, n, D) for another number of samples.

    Raises:
        ValueError: names both numbers.
    """
    if prompt.dim() == 3 and prompt.shape[0] != samples:
        raise ValueError(
            f"per-sample prompts must match the batch of {samples}, got {prompt.shape[0]} sets"
        )


def check_classes(prompts: Sequence[Tensor | None], classes: int) -> None:
    """Refuse contexts (G, K, n, D) of another number of classes.

    Raises:
        ValueError: names both numbers.
    """
    for depth in prompts:
        if depth is not None and depth.dim() == 4 and depth.shape[1] != classes:
            raise ValueError(
                f"class-specific contexts of {depth.shape[1]} classes cannot encode {classes} "
                "classes; they do not transfer (CoOp, section 3.1)"
            )


def check_positions(text: Sequence[Tensor | None], positions: Tensor | None) -> None:
    """Refuse positions (n,) or (N, n) that are not one for each token of the text prompts.

    Raises:
        ValueError: names both numbers.
    """
    if text and positions is not None and positions.shape[-1] != (n := first_of(text).shape[-2]):
        raise ValueError(
            f"text_positions must name {n} positions, one per prompt token, "
            f"got {positions.shape[-1]}"
        )


def first_of(prompts: Sequence[Tensor | None]) -> Tensor:
    """The prompts of the first depth, which are always there."""
    first = prompts[0]
    assert first is not None, "check_prompts refuses it"
    return first
