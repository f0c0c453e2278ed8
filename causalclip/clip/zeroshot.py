"""Class names and templates, or any texts, to text features; cosine logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from causalclip.clip.encode import encode_text
from causalclip.clip.kinds import backbone_of
from causalclip.clip.model import CLIPModel
from causalclip.clip.templates import spoken

TEXTS_AT_ONCE = 256  # bounds the memory of encoding many texts; no effect on the result


@torch.no_grad()
def class_features(model: CLIPModel, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return one unit vector per class (K, E), the normalised mean over templates.

    Each text `template.format(name)` is encoded and normalised, the features of a class are
    averaged and normalised again (CLIP, section 3.1.4). `_` in names reads as a space.

    Raises:
        ValueError: no class name, no template, or a template without `{}`.
    """
    if not classnames or not templates:
        raise ValueError("class_features needs at least one class name and one template")
    mean = _features(model, classnames, templates[0])
    for template in templates[1:]:
        mean = mean + _features(model, classnames, template)
    return F.normalize(mean / len(templates), dim=-1)


@torch.no_grad()
def text_features(model: CLIPModel, texts: Sequence[str], *, cut: bool = False) -> Tensor:
    """Return the features (N, E) of N texts as they stand, not normalised, in fp32 on the CPU.

    `cut` as in `tokenize`.

    Raises:
        ValueError: no text, or one longer than the context without `cut`; quotes it.
    """
    if not texts:
        raise ValueError("text_features needs at least one text")
    backbone, device = backbone_of(model), model.logit_scale.device
    parts = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
    tokens = (
        backbone.tokenizer(part, backbone.context_length, cut=cut).to(device) for part in parts
    )
    return torch.cat([encode_text(model, part).float().cpu() for part in tokens])


def cosine_logits(image_features: Tensor, text_features: Tensor, scale: Tensor | float) -> Tensor:
    """Return scale * cos(image, text_k), (..., K).

    Args:
        image_features: (..., E).
        text_features: (K, E), or (..., K, E) when each image or template has texts of its own; the
            leading axes broadcast: (B, M, E) against (M, K, E) gives (B, M, K).
        scale: exp(logit_scale) of the model.
    """
    dtype = torch.promote_types(image_features.dtype, text_features.dtype)
    image = F.normalize(image_features.to(dtype), dim=-1)
    text = F.normalize(text_features.to(dtype), dim=-1)
    if text.dim() == 2:
        return scale * image @ text.T
    return scale * torch.einsum("...e,...ke->...k", image, text)


def _features(model: CLIPModel, classnames: Sequence[str], template: str) -> Tensor:
    if "{}" not in template:
        raise ValueError(f"a template must contain {{}} for the class name, got {template!r}")
    texts = [template.replace("{}", spoken(name)) for name in classnames]
    backbone = backbone_of(model)
    tokens = backbone.tokenizer(texts, backbone.context_length).to(model.logit_scale.device)
    return F.normalize(encode_text(model, tokens), dim=-1)
