"""Which patches the class token attends to in the last block of the image tower.

The weights of CLIP's own attention, the mean of its heads. They say where the tower looks, for no
class in particular, and not what it makes of it (Jain and Wallace, NAACL 2019, arXiv 1902.10186).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from causalclip.clip.kinds import openai_model
from causalclip.clip.model import is_vit
from causalclip.engine.prediction import Prediction
from causalclip.predict.image_side import prompts_of
from causalclip.predict.patches import cut, in_place, last_layer, tokens_of
from causalclip.predict.predictor import Predictor


@torch.no_grad()
def attention_maps(predictor: Predictor, images: Tensor) -> dict[str, Tensor]:
    """The share (h, w) of the class token's attention that each patch of one picture gets.

    Args:
        predictor: the trained method.
        images: (1, 3, R, R), behind the transform.

    Returns:
        By name: `class token`, or of M prompt sets in the image tower `template 1`, ...

    Raises:
        ValueError: a backbone whose last block is no attention of torch's.
    """
    clip = openai_model(predictor.trainer.clip, "a map of attention")
    if not is_vit(clip):
        raise ValueError("attention needs a ViT backbone, got a ResNet: explain by the gradient")
    attn = clip.visual.transformer.resblocks[-1].attn
    if not isinstance(attn, nn.MultiheadAttention):
        kind = type(attn).__name__
        raise ValueError(f"attention must be torch.nn.MultiheadAttention, got {kind}")
    with cut(last_layer(clip)) as seen, predictor.trainer.autocast():
        prediction = predictor.differentiable(images)
        weights = class_attention(attn, tokens_of(clip, seen[0]))
    midway = prompts_of(predictor.trainer).image_additions.n_tokens
    maps = in_place(clip, weights.float(), midway)
    return dict(zip(_names(prediction, len(maps)), maps, strict=True))


def class_attention(attn: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Attention weights (S, L) of the first token on all, the mean of the heads; rows sum to 1.

    Args:
        attn: the module that attends.
        tokens: (S, L, D), as it receives them.
    """
    x = tokens if attn.batch_first else tokens.transpose(0, 1)
    first = x.narrow(1 if attn.batch_first else 0, 0, 1)
    _, weights = attn(first, x, x, need_weights=True, average_attn_weights=True)
    return weights[:, 0]


def _names(prediction: Prediction, sets: int) -> list[str]:
    if sets == 1:
        return ["class token"]
    kind = next(iter(prediction.members), "prompts")
    return [f"{kind} {number}" for number in range(1, sets + 1)]
