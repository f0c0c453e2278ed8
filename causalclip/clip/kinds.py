"""Which implementation of the protocol answers for a model."""

from __future__ import annotations

from typing import cast

from torch import nn

from causalclip.clip.model import CLIPModel
from causalclip.clip.open_clip_backbone import OpenCLIP
from causalclip.clip.openai_backbone import OpenAIBackbone
from causalclip.clip.protocol import Backbone


def backbone_of(model: nn.Module) -> Backbone:
    """The CLIP that `load_clip` gave, as the methods see it."""
    return model if isinstance(model, OpenCLIP) else OpenAIBackbone(model)


def openai_model(model: nn.Module, what: str) -> CLIPModel:
    """A model of OpenAI's classes, for `what` reads more of it than the protocol has.

    Raises:
        ValueError: another model; names it and `what`.
    """
    if isinstance(model, OpenCLIP):
        raise ValueError(f"{what} needs a CLIP of OpenAI's classes, got {model.name}")
    return cast(CLIPModel, model)
