"""Explain an answer by the patches of its image: gradient times activation, or attention.

`gradient` is Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) with its sign (Shrikumar et
al., arXiv 1605.01713). It is taken at the input of the last block's attention, the last layer at
which patches affect the class token. For a ResNet it is taken at the last stage.

`attention` is the mean over the heads of the last block. It is the same for all classes and does
not explain an answer (Jain and Wallace, NAACL 2019, arXiv 1902.10186).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from causalclip.clip.interface import openai_model
from causalclip.clip.openai_clip import CLIPModel, has_plain_image_tower, is_vit
from causalclip.engine.prediction import Prediction, Reading
from causalclip.files.atomic import replacing
from causalclip.plots.style import literal_text
from causalclip.predict.answers import Answer, answers_of
from causalclip.predict.pictures import ImageSource, intact, open_image, path_of
from causalclip.predict.trained import prompts_of

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer
    from causalclip.predict.predictor import Predictor

MapKind = Literal["gradient", "attention"]

PROJECTED = "_icm"  # at the end of the names of CLIP_ICM's readings in the subspace
COLOUR_MAP = "PuOr_r"  # orange: for, purple: against; distinct for the colour-blind
PANEL = 2.2  # width of a panel in inches
PANELS_IN_A_ROW = 6


@dataclass(frozen=True, eq=False)
class Explanation:
    """An answer, and maps of its image."""

    answer: Answer
    classname: str
    """The explained class; for `attention`, the predicted class."""
    picture: NDArray[np.float32]
    """(R, R, 3) in [0, 1]: the image after the transform."""
    maps: Mapping[str, NDArray[np.float32]]
    """Maps (h, w) by name, with one number per patch.

    `gradient` has one map per reading: `answer` and CDC's `template 1`, ...; for CLIP_ICM one
    before and one after the projection. It is positive where a patch speaks for the class.
    `attention` has one map per prompt set: each patch's share of the class token's attention.
    """
    kind: MapKind = "gradient"

    def __str__(self) -> str:
        """Return the answer and the subject of the maps in one line."""
        answer, subject = self.answer, f"relevance for {self.classname}"
        if self.kind == "attention":
            subject = "attention of the class token"
        return (
            f"{answer.classname}, p {answer.probability:.3f}, "
            f"uncertainty {answer.uncertainty:.4g}; {subject}"
        )

    def figure(self) -> Figure:
        """Return the image and its maps, each on its own scale, with a title and a colour bar."""
        count = 1 + len(self.maps)
        columns, rows = min(count, PANELS_IN_A_ROW), -(-count // PANELS_IN_A_ROW)
        figure = Figure(
            figsize=(PANEL * columns, (PANEL + 0.25) * rows + 0.8), layout="constrained"
        )
        figure.suptitle(literal_text(fill(str(self), 25 * columns)), fontsize=9)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        panels[0].imshow(self.picture)
        panels[0].set_title("image", fontsize=9)
        edge = len(self.picture) - 0.5
        for axes, (name, values) in zip(panels[1:], self.maps.items(), strict=False):
            limit = float(np.abs(values).max()) or 1.0
            style = {"cmap": COLOUR_MAP, "vmin": -limit, "vmax": limit, "alpha": 0.6}
            axes.imshow(self.picture.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
            axes.imshow(values, extent=(-0.5, edge, edge, -0.5), **style)
            axes.set_title(literal_text(name), fontsize=9)
        ends = ["against", "0", "for"] if self.kind == "gradient" else ["", "none", "most"]
        colours = ScalarMappable(Normalize(-1, 1), COLOUR_MAP)
        key = {"location": "bottom", "aspect": 40, "shrink": 0.6, "ticks": [-1, 0, 1]}
        bar = figure.colorbar(colours, ax=list(panels), alpha=0.6, **key)
        bar.ax.set_xticklabels(ends, fontsize=8)
        bar.ax.set_xlim(-1 if self.kind == "gradient" else 0, 1)
        return figure

    def save(self, path: str | Path) -> None:
        """Write the figure atomically as a PNG, with a description in its metadata.

        Raises:
            OSError: the file cannot be written.
        """
        metadata = {"Description": f"{self.answer.image}: {self}"}
        with replacing(Path(path)) as part:
            self.figure().savefig(part, format="png", dpi=150, metadata=metadata)


def explain(
    predictor: Predictor, image: ImageSource, *, classname: str = "", kind: MapKind = "gradient"
) -> Explanation:
    """Return how much each patch of an image speaks for the predicted class, or for another one.

        r_l = sum_d a_ld dS/da_ld,   S = log p_k - log sum_{j != k} p_j

    a_l is the activation of patch l at the input of the last attention, and S is the log odds of
    class k. To first order, S decreases by r_l if the patch is removed.

    Args:
        predictor: the trained method.
        image: a path, or a PIL image.
        classname: the class k of the gradient; empty for the predicted one.
        kind: `gradient` for r_l, or `attention` for the weights of the class token.

    Raises:
        OSError: an image that cannot be read.
        ValueError: a class that is none of the predictor's, another kind, or attention for a class
            or of a backbone that has none.
    """
    _check(predictor, classname, kind)
    images = predictor.trainer.encoder.transform(intact(open_image(image))).unsqueeze(0)
    (answer,) = answers_of(predictor.prediction(images), [path_of(image)], predictor.classnames)
    name = classname or answer.classname
    if kind == "attention":
        tensors = attention_maps(predictor, images)
    else:
        tensors = gradient_maps(predictor, images, predictor.classnames.index(name))
    maps = {reading: values.cpu().numpy() for reading, values in tensors.items()}
    seen = images.flatten(0, -4)[0]  # the first of several views is the image itself
    return Explanation(answer, name, _pixels(seen, predictor.trainer.cfg.INPUT), maps, kind)


def _check(predictor: Predictor, classname: str, kind: str) -> None:
    if kind not in get_args(MapKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(MapKind))}, got {kind!r}")
    if classname and classname not in predictor.classnames:
        names = ", ".join(predictor.classnames)
        raise ValueError(f"class must be one of {names}, got {classname!r}")
    if classname and kind == "attention":
        raise ValueError(f"attention is the same for all classes, got the class {classname!r}")


def _pixels(image: Tensor, inputs: Any) -> NDArray[np.float32]:
    """Return a transformed image (3, R, R) as pixels (R, R, 3) in [0, 1]."""
    if "normalize" in inputs.TRANSFORMS:
        mean, std = torch.tensor(inputs.PIXEL_MEAN), torch.tensor(inputs.PIXEL_STD)
        image = image * std[:, None, None] + mean[:, None, None]
    return image.clamp(0, 1).permute(1, 2, 0).numpy()


# The gradient


def gradient_maps(predictor: Predictor, images: Tensor, label: int) -> dict[str, Tensor]:
    """Return the relevance (h, w) of one image's patches for class `label`, per reading."""
    trainer = predictor.trainer

    def scores() -> dict[str, Tensor]:
        readings = _explained_readings(predictor.differentiable(images))
        return {name: log_odds(reading, label) for name, reading in readings.items()}

    values = relevance(last_layer(trainer.clip), scores)
    if not is_vit(trainer.clip):
        return {name: stage.sum(dim=(0, 1)) for name, stage in values.items()}  # 1 C h w
    tokens = {name: _tokens(trainer.clip, each).sum(dim=(0, 2)) for name, each in values.items()}
    return {name: _patches(trainer, each) for name, each in tokens.items()}


def _explained_readings(prediction: Prediction) -> dict[str, Reading]:
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
    """Return log p_k - log sum_{j != k} p_j of class k = `label`, summed over the rows (B, K).

    For a softmax, this is logit k minus the logsumexp of the other logits. Unlike log p_k, it has a
    gradient where p_k is close to 1.
    """
    p = reading.probabilities
    others = torch.cat([p[:, :label], p[:, label + 1 :]], dim=-1).sum(-1)
    tiny = torch.finfo(p.dtype).tiny
    return (p[:, label].clamp_min(tiny).log() - others.clamp_min(tiny).log()).sum()


def relevance(layer: nn.Module, scores: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return activation times gradient of each score, in the shape (...) of the layer's output.

    Args:
        layer: a layer that `scores` calls; the activation is its first output. Earlier layers get
            no gradient.
        scores: a function that computes scalars by name.
    """
    with torch.enable_grad(), _detached_output(layer) as activations:
        named = scores()
    activation = activations[0]  # MMA's adapters call the layer again, for each token alone
    return {
        name: activation.detach() * torch.autograd.grad(score, activation, retain_graph=True)[0]
        for name, score in named.items()
    }


# Attention


@torch.no_grad()
def attention_maps(predictor: Predictor, images: Tensor) -> dict[str, Tensor]:
    """Return each patch's share (h, w) of the class token's attention, for one image.

    Returns:
        By name: `class token`, or `template 1`, ... for M prompt sets in the image tower.

    Raises:
        ValueError: a ResNet.
    """
    trainer, clip = predictor.trainer, openai_model(predictor.trainer.clip, "a map of attention")
    if not is_vit(clip):
        raise ValueError("attention needs a ViT backbone, got a ResNet: explain by the gradient")
    attention = clip.visual.transformer.resblocks[-1].attn
    with _detached_output(last_layer(clip)) as activations, trainer.backbone.autocast():
        prediction = predictor.differentiable(images)
        weights = class_attention(attention, _tokens(clip, activations[0]))
    maps = _patches(trainer, weights.float())
    if len(maps) == 1 or getattr(trainer, "test_views", None):
        return {"class token": maps[0]}
    kind = next(iter(prediction.members), "prompts")
    return {f"{kind} {number}": each for number, each in enumerate(maps, 1)}


def class_attention(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Return the attention (S, L) of the first of the tokens (S, L, D), averaged over the heads."""
    x = tokens.transpose(0, 1)  # CLIP's module expects (L, S, D)
    _, weights = attention(x[:1], x, x)
    return weights[:, 0]


# Patches in the image tower


def last_layer(clip: CLIPModel) -> nn.Module:
    """Return the last layer with separate patches: the last block's norm, or a ResNet's stage.

    Raises:
        ValueError: a CLIP that is not of OpenAI's classes.
    """
    if not is_vit(openai_model(clip, "a map of patches")):
        return clip.visual.layer4
    return clip.visual.transformer.resblocks[-1].ln_1


@contextmanager
def _detached_output(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Detach a layer's outputs, at which the graph then begins; yield the list of these outputs."""
    outputs: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    handle = layer.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()


def _tokens(clip: CLIPModel, values: Tensor) -> Tensor:
    """Return values at `last_layer` of a ViT as (S, L, D); OpenAI's own forward has (L, S, D)."""
    return values if has_plain_image_tower(clip) else values.transpose(0, 1)


def _patches(trainer: CLIPTrainer, values: Tensor) -> Tensor:
    """Select the values of the patches (..., h, w) from the values of all tokens (..., L).

    The order of tokens is: class token, tokens added between blocks (MMRL), patches, prompts.
    """
    count = len(trainer.clip.visual.positional_embedding) - 1
    added, side = prompts_of(trainer).image_additions.n_tokens, round(count**0.5)
    return values.narrow(-1, 1 + added, count).unflatten(-1, (side, side))
