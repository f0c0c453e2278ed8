"""The size of a CLIP from its name or file, without building or downloading it."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from causalclip.clip.backbone import weights_file
from causalclip.clip.interface import PREFIX
from causalclip.clip.open_clip_backbone import parse_source
from causalclip.clip.openai_clip import RELEASED
from causalclip.clip.weights import read_weights


@dataclass(frozen=True)
class CLIPShape:
    """Image size, text width and depth of a CLIP."""

    image_size: int
    text_width: int
    text_blocks: int
    image_blocks: int | None = None
    """None if the image tower is not a ViT, or its number of blocks is not known."""

    def __str__(self) -> str:
        image = f" and {self.image_blocks} image" if self.image_blocks else ""
        size = f"{self.image_size} x {self.image_size} pixels"
        return f"{size}, text width {self.text_width}, {self.text_blocks} text{image} blocks"

    def distance(self, other: CLIPShape) -> float:
        """Return the distance of two sizes: the sum of the absolute logarithms of their ratios."""
        pairs = (
            (self.image_size, other.image_size),
            (self.text_width, other.text_width),
            (self.text_blocks, other.text_blocks),
        )
        return sum(abs(math.log(ours / theirs)) for ours, theirs in pairs)

    def blocks(self, tower: str) -> int:
        """Return the number of blocks of tower `text` or `image`; for other names, the smaller."""
        counts = {"text": self.text_blocks, "image": self.image_blocks or self.text_blocks}
        return counts.get(tower, min(counts.values()))


VIT_B16 = CLIPShape(224, 512, 12, 12)
# Radford et al., arXiv 2103.00020, tables 19 and 20: all text towers have 12 blocks.
_PUBLISHED = {
    "RN50": CLIPShape(224, 512, 12),
    "RN101": CLIPShape(224, 512, 12),
    "RN50x4": CLIPShape(288, 640, 12),
    "RN50x16": CLIPShape(384, 768, 12),
    "RN50x64": CLIPShape(448, 1024, 12),
    "ViT-B/32": CLIPShape(224, 512, 12, 12),
    "ViT-B/16": VIT_B16,
    "ViT-L/14": CLIPShape(224, 768, 12, 24),
    "ViT-L/14@336px": CLIPShape(336, 768, 12, 24),
}


@functools.lru_cache(maxsize=16)  # reads a file once for all runs of a plan
def shape_of(name: str) -> CLIPShape:
    """Return the size of a CLIP by its name, as in `load_clip`; a released name is looked up.

    Raises:
        ValueError: an unknown name, or a file that holds no CLIP.
        FileNotFoundError: no file at the given path.
    """
    if name in RELEASED:
        return _PUBLISHED[name]
    if name.startswith(PREFIX):
        return _of_open_clip(parse_source(name).config)
    path = weights_file(name)
    state, _ = read_weights(path)
    try:
        return _of_state(state)
    except KeyError as error:
        message = f"{path} holds no CLIP in the released layout: missing {error}"
        raise ValueError(message) from error


def _of_open_clip(config: Mapping[str, Mapping]) -> CLIPShape:
    text, image = config["text_cfg"], config["vision_cfg"]
    size, layers = image.get("image_size", 224), image.get("layers", 12)
    plain = isinstance(layers, int) and "timm_model_name" not in image
    return CLIPShape(
        size if isinstance(size, int) else size[0],
        text.get("width", 512),
        text.get("layers", 12),
        layers if plain else None,
    )


def _of_state(state: Mapping[str, Tensor]) -> CLIPShape:
    def blocks(tower: str) -> int:
        number = re.compile(rf"{re.escape(tower)}transformer\.resblocks\.(\d+)\.")
        return 1 + max((int(m[1]) for key in state if (m := number.match(key))), default=-1)

    vit = "visual.proj" in state
    places = state[f"visual.{'' if vit else 'attnpool.'}positional_embedding"].shape[0]
    pixels = state["visual.conv1.weight"].shape[-1] if vit else 32  # per position
    return CLIPShape(
        math.isqrt(places - 1) * pixels,
        state["ln_final.weight"].shape[0],
        blocks(""),
        blocks("visual.") if vit else None,
    )
