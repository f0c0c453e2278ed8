"""Which patches of a picture speak for a class: gradient times activation in the image tower.

Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) at the input of the last block's attention,
the only way by which patches still reach the class token, and with its sign (Shrikumar et al.,
arXiv 1605.01713). Of a ResNet, at the last stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalclip.clip.model import CLIPModel, is_vit
from causalclip.clip.plain import has_plain_image_tower
from causalclip.engine.prediction import Prediction, Reading
from causalclip.predict.answer import Answer, answers
from causalclip.predict.pictures import Broken, Source, name_of, read
from causalclip.predict.predictor import Predictor

PROJECTED = "_icm"  # ends the names of CLIP_ICM's readings in the subspace


@dataclass(frozen=True, eq=False)
class Explanation:
    """An answer, and for each of its readings which patches speak for one class."""

    answer: Answer
    classname: str
    """The class that is explained."""
    picture: NDArray[np.float32]
    """(R, R, 3) in [0, 1]: what the tower sees of the image."""
    maps: Mapping[str, NDArray[np.float32]]
    """(h, w) by name, a number a patch: above 0 it speaks for the class, below 0 against it.

    `answer` and, for CDC, `template 1`, ...; for CLIP_ICM before and after the projection.
    """


def explain(predictor: Predictor, image: Source, *, classname: str = "") -> Explanation:
    """What speaks for the answer about one picture, or for another class.

        r_l = sum_d a_ld dS/da_ld,   S = log p_k - log sum_{j != k} p_j

    a_l is patch l at the input of the last attention: r_l is, to first order, what the log odds S
    of class k lose with the patch.

    Args:
        predictor: the trained method.
        image: a path, or a picture of Pillow's.
        classname: the class k; empty for the predicted one.

    Raises:
        OSError: a picture that cannot be read.
        ValueError: a class that is none of the predictor's.
    """
    if classname and classname not in predictor.classnames:
        known = ", ".join(predictor.classnames)
        raise ValueError(f"class must be one of {known}, got {classname!r}")
    picture = read(image)
    if isinstance(picture, Broken):
        raise OSError(f"cannot read the image {picture.image}: {picture.reason}")
    images = predictor.trainer.encoder.transform(picture).unsqueeze(0)
    (answer,) = answers(predictor.prediction(images), [name_of(image)], predictor.classnames)
    name = classname or answer.classname
    label, clip = predictor.classnames.index(name), predictor.trainer.clip

    def scores() -> dict[str, Tensor]:
        readings = named_readings(predictor.differentiable(images))
        return {reading: log_odds(found, label) for reading, found in readings.items()}

    found = relevance(last_layer(clip), scores)
    maps = {reading: patch_map(clip, values).cpu().numpy() for reading, values in found.items()}
    return Explanation(answer, name, unnormalised(images[0], predictor.trainer.cfg.INPUT), maps)


def named_readings(prediction: Prediction) -> dict[str, Reading]:
    """The readings of B pictures that are explained, (B, K) each, by what they are called."""
    names = {id(reading): name for name, reading in prediction.readings.items()}
    name = names.get(id(prediction.main), "")
    if name.endswith(PROJECTED):
        before = prediction.readings[name.removesuffix(PROJECTED)]
        return {"before the projection": before, "after the projection": prediction.main}
    members = {
        f"{kind} {number}": member
        for kind, several in prediction.members.items()
        for number, member in enumerate(several.each(), 1)
    }
    return {"answer": prediction.main, **members}


def log_odds(reading: Reading, label: int) -> Tensor:
    """log p_k - log sum_{j != k} p_j of class k = `label`, summed over the rows (B, K).

    Of a softmax this is the logit against those of all others; unlike log p it has a gradient where
    the answer is certain.
    """
    p = reading.probabilities
    others = torch.cat([p[:, :label], p[:, label + 1 :]], dim=-1).sum(-1)
    tiny = torch.finfo(p.dtype).tiny
    return (p[:, label].clamp_min(tiny).log() - others.clamp_min(tiny).log()).sum()


# The gradient


def relevance(layer: nn.Module, scores: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Activation times gradient of each score, in the shape (...) of what `layer` gives.

    Args:
        layer: is run once by `scores`; what lies before it gets no gradient.
        scores: computes scalars by name.
    """
    with torch.enable_grad(), _cut(layer) as activations:
        named = scores()
    (activation,) = activations
    return {
        name: activation.detach()
        * torch.autograd.grad(score, activation, retain_graph=True)[0].detach()
        for name, score in named.items()
    }


@contextmanager
def _cut(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Begin the graph at the output of a layer while the context lasts; gives that output."""
    seen: list[Tensor] = []

    def cut(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    handle = layer.register_forward_hook(cut)
    try:
        yield seen
    finally:
        handle.remove()


def last_layer(clip: CLIPModel) -> nn.Module:
    """Where patches are last seen apart: the last block's input of attention, or stage."""
    if not is_vit(clip):
        return clip.visual.layer4
    return clip.visual.transformer.resblocks[-1].ln_1


def patch_map(clip: CLIPModel, values: Tensor) -> Tensor:
    """One number a patch (h, w), of values at `last_layer` for one picture.

    Args:
        clip: the model.
        values: tokens (S, L, D) of S prompt sets, class token first and prompts last; (L, S, D)
            where the tower is not OpenAI's plain one; a stage (1, C, h, w) of a ResNet.
    """
    if not is_vit(clip):
        return values.sum(dim=(0, 1))
    tokens = values if has_plain_image_tower(clip) else values.transpose(0, 1)
    patches = len(clip.visual.positional_embedding) - 1
    side = round(patches**0.5)
    return tokens[:, 1 : 1 + patches].sum(dim=(0, 2)).unflatten(0, (side, side))


def unnormalised(image: Tensor, inputs: Any) -> NDArray[np.float32]:
    """A picture (R, R, 3) in [0, 1] from what the transform made of it (3, R, R)."""
    if "normalize" in inputs.TRANSFORMS:
        mean, std = torch.tensor(inputs.PIXEL_MEAN), torch.tensor(inputs.PIXEL_STD)
        image = image * std[:, None, None] + mean[:, None, None]
    return image.clamp(0, 1).permute(1, 2, 0).numpy()
