"""Which patches of a picture speak for a class: gradient times activation in the image tower.

Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) at the input of the last block's attention,
the only way by which patches still reach the class token, and with its sign (Shrikumar et al.,
arXiv 1605.01713). Of a ResNet, at the last stage. The other kind of map is in `attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from causalclip.clip.model import CLIPModel, is_vit
from causalclip.engine.prediction import Prediction, Reading
from causalclip.predict.answer import Answer, answers
from causalclip.predict.attention import attention_maps
from causalclip.predict.image_side import prompts_of
from causalclip.predict.patches import cut, in_place, last_layer, tokens_of
from causalclip.predict.pictures import Broken, Source, name_of, read
from causalclip.predict.predictor import Predictor

PROJECTED = "_icm"  # ends the names of CLIP_ICM's readings in the subspace

Kind = Literal["gradient", "attention"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """An answer, and maps of the picture that it is about."""

    answer: Answer
    classname: str
    """The class that is explained; of `attention`, which knows no class, the answer's."""
    picture: NDArray[np.float32]
    """(R, R, 3) in [0, 1]: what the tower sees of the image."""
    maps: Mapping[str, NDArray[np.float32]]
    """(h, w) by name, a number a patch.

    Of `gradient` a map a reading, above 0 where a patch speaks for the class and below 0 against
    it: `answer` and, for CDC, `template 1`, ...; for CLIP_ICM before and after the projection. Of
    `attention` a map a prompt set, the share of the class token's attention.
    """
    kind: Kind = "gradient"

    @property
    def subject(self) -> str:
        """What the maps show, in words."""
        if self.kind == "attention":
            return "attention of the class token"
        return f"what speaks for {self.classname}"

    def __str__(self) -> str:
        """The answer and what is shown, in a line."""
        answer = self.answer
        return (
            f"{answer.classname}, p {answer.probability:.3f}, "
            f"uncertainty {answer.uncertainty:.4g}; {self.subject}"
        )


def explain(
    predictor: Predictor, image: Source, *, classname: str = "", kind: Kind = "gradient"
) -> Explanation:
    """What speaks for the answer about one picture, or for another class.

        r_l = sum_d a_ld dS/da_ld,   S = log p_k - log sum_{j != k} p_j

    a_l is patch l at the input of the last attention: r_l is, to first order, what the log odds S
    of class k lose with the patch.

    Args:
        predictor: the trained method.
        image: a path, or a picture of Pillow's.
        classname: the class k of the gradient; empty for the predicted one.
        kind: `gradient` for r_l, or `attention` for the weights of the class token.

    Raises:
        OSError: a picture that cannot be read.
        ValueError: a class that is none of the predictor's, another kind, or attention for a class
            or of a backbone that has none.
    """
    _check(predictor, classname, kind)
    picture = read(image)
    if isinstance(picture, Broken):
        raise OSError(f"cannot read the image {picture.image}: {picture.reason}")
    images = predictor.trainer.encoder.transform(picture).unsqueeze(0)
    (answer,) = answers(predictor.prediction(images), [name_of(image)], predictor.classnames)
    name = classname or answer.classname
    if kind == "attention":
        found = attention_maps(predictor, images)
    else:
        found = gradient_maps(predictor, images, predictor.classnames.index(name))
    seen = unnormalised(images[0], predictor.trainer.cfg.INPUT)
    maps = {reading: values.cpu().numpy() for reading, values in found.items()}
    return Explanation(answer, name, seen, maps, kind)


def _check(predictor: Predictor, classname: str, kind: str) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if classname and classname not in predictor.classnames:
        known = ", ".join(predictor.classnames)
        raise ValueError(f"class must be one of {known}, got {classname!r}")
    if classname and kind == "attention":
        raise ValueError(f"attention is the same for all classes, got the class {classname!r}")


# The gradient


def gradient_maps(predictor: Predictor, images: Tensor, label: int) -> dict[str, Tensor]:
    """A map (h, w) for each reading of one picture (1, 3, R, R): what speaks for class `label`."""
    clip = predictor.trainer.clip

    def scores() -> dict[str, Tensor]:
        readings = named_readings(predictor.differentiable(images))
        return {reading: log_odds(found, label) for reading, found in readings.items()}

    found = relevance(last_layer(clip), scores)
    midway = prompts_of(predictor.trainer).image_additions.n_tokens
    return {reading: patch_map(clip, values, midway) for reading, values in found.items()}


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


def relevance(layer: nn.Module, scores: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Activation times gradient of each score, in the shape (...) of what `layer` gives.

    Args:
        layer: is run by `scores`, and read where it runs first; what lies before it gets no
            gradient.
        scores: computes scalars by name.
    """
    with torch.enable_grad(), cut(layer) as activations:
        named = scores()
    activation = activations[0]  # MMA's adapters read the layer again, each token for itself
    return {
        name: activation.detach()
        * torch.autograd.grad(score, activation, retain_graph=True)[0].detach()
        for name, score in named.items()
    }


def patch_map(clip: CLIPModel, values: Tensor, midway: int = 0) -> Tensor:
    """One number a patch (h, w), of values at `last_layer` for one picture.

    Args:
        clip: the model.
        values: tokens (S, L, D) of S prompt sets, class token first and prompts last; (L, S, D)
            where the tower is not OpenAI's plain one; a stage (1, C, h, w) of a ResNet.
        midway: how many tokens stand between class token and patches.
    """
    if not is_vit(clip):
        return values.sum(dim=(0, 1))
    return in_place(clip, tokens_of(clip, values).sum(dim=(0, 2)), midway)


def unnormalised(image: Tensor, inputs: Any) -> NDArray[np.float32]:
    """A picture (R, R, 3) in [0, 1] from what the transform made of it (3, R, R)."""
    if "normalize" in inputs.TRANSFORMS:
        mean, std = torch.tensor(inputs.PIXEL_MEAN), torch.tensor(inputs.PIXEL_STD)
        image = image * std[:, None, None] + mean[:, None, None]
    return image.clamp(0, 1).permute(1, 2, 0).numpy()
