"""Text features of class names with templates, or of any texts, and cosine logits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.clip.encode import encode_text
from causalclip.clip.interface import backbone_of
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.texts import readable

TEXT_BATCH = 256  # bounds the memory of encoding many texts; no effect on the result

# The templates of CLIP's notebook "Prompt engineering for ImageNet", and the seven it selects.
_FILE = Path(__file__).parent / "assets" / "imagenet_templates.json"
_TEMPLATES = json.loads(_FILE.read_text(encoding="utf-8"))
IMAGENET_TEMPLATES, IMAGENET_TEMPLATES_SELECT = map(tuple, _TEMPLATES.values())


@torch.no_grad()
def class_features(model: CLIPModel, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return one unit vector per class (K, E), the normalised mean over templates.

    Each text `template.format(name)` is encoded and normalised, the features of a class are
    averaged and normalised again (CLIP, section 3.1.4). `_` in names becomes a space.

    Raises:
        ValueError: no class name, no template, or a template without `{}`.
    """
    if not classnames or not templates:
        raise ValueError("class_features needs at least one class name and one template")
    mean = _template_features(model, classnames, templates[0])
    for template in templates[1:]:
        mean = mean + _template_features(model, classnames, template)
    return F.normalize(mean / len(templates), dim=-1)


@torch.no_grad()
def mean_text_features(model: CLIPModel, texts: Sequence[Sequence[str]]) -> Tensor:
    """Return one unit vector per class (K, E), the normalised mean over the texts of the class.

    Raises:
        ValueError: a text longer than the context (as in `tokenize`).
    """
    flat = [text for own in texts for text in own]
    parts = [flat[start : start + TEXT_BATCH] for start in range(0, len(flat), TEXT_BATCH)]
    unit = torch.cat([F.normalize(_encode(model, part), dim=-1) for part in parts])
    means = [own.mean(0) for own in unit.split([len(own) for own in texts])]
    return F.normalize(torch.stack(means), dim=-1)


@torch.no_grad()
def text_features(model: CLIPModel, texts: Sequence[str], *, cut: bool = False) -> Tensor:
    """Return the features (N, E) of N texts, not normalised, in fp32 on the CPU.

    Raises:
        ValueError: a text longer than the context without `cut` (as in `tokenize`).
    """
    parts = [texts[start : start + TEXT_BATCH] for start in range(0, len(texts), TEXT_BATCH)]
    return torch.cat([_encode(model, part, cut=cut).float().cpu() for part in parts])


def cosine_logits(image_features: Tensor, text_features: Tensor, scale: Tensor | float) -> Tensor:
    """Return scale * cos(image, text_k), (..., K), of image features (..., E).

    Text features are (K, E), or (..., K, E) when each image or template has its own texts. Leading
    axes broadcast: (B, M, E) against (M, K, E) gives (B, M, K). The scale is exp(logit_scale) of
    the model.
    """
    dtype = torch.promote_types(image_features.dtype, text_features.dtype)
    image = F.normalize(image_features.to(dtype), dim=-1)
    text = F.normalize(text_features.to(dtype), dim=-1)
    if text.dim() == 2:
        return scale * image @ text.T
    return scale * torch.einsum("...e,...ke->...k", image, text)


def _template_features(model: CLIPModel, classnames: Sequence[str], template: str) -> Tensor:
    if "{}" not in template:
        raise ValueError(f"a template must contain {{}} for the class name, got {template!r}")
    texts = [template.replace("{}", readable(name)) for name in classnames]
    return F.normalize(_encode(model, texts), dim=-1)


def _encode(model: CLIPModel, texts: Sequence[str], *, cut: bool = False) -> Tensor:
    backbone = backbone_of(model)
    tokens = backbone.tokenizer(texts, backbone.context_length, cut=cut)
    return encode_text(model, tokens.to(model.logit_scale.device))
