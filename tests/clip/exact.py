"""A small CLIP in float64, so that two orders of a sum agree to 1e-12."""

from __future__ import annotations

import torch
from torch import nn

from causalclip.clip.backbone import build_clip

SHAPE = {"vision_layers": 1, "transformer_width": 24, "transformer_heads": 3, "embed_dim": 10}


def exact_clip(**options):
    """Frozen, with biases that are not zero; its LayerNorms in float64 too, as OpenAI's would
    round to fp32."""
    model = build_clip(**{**SHAPE, **options}).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                own = nn.LayerNorm(child.normalized_shape)
                own.load_state_dict(child.state_dict())
                setattr(parent, name, own.requires_grad_(False))
    return model.double()


def exact_images():
    """Four pictures (4, 3, 32, 32) of noise, always the same."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, 3, 32, 32, generator=generator, dtype=torch.float64)


def random_prompts(*shape, depth, width, seed=0):
    """`depth` prompts (*shape, width) that learn, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((depth, *shape, width), generator=generator, dtype=torch.float64)
    return list((0.3 * values).requires_grad_().unbind())
