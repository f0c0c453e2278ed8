"""Small models of the kinds that open_clip has, with random weights, registered by name."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
NO_MASK = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "context_length": 64}
POOLER = {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}


def timm_vision(name: str, pool: str) -> dict:
    return {"image_size": 32, "timm_model_name": name, "timm_pool": pool, "timm_proj": "linear"}


KINDS = {
    "vit": {"vision_cfg": VISION, "text_cfg": TEXT},
    # no mask, map pooling, 64 tokens, a bias of the logits
    "map": {
        "vision_cfg": timm_vision("seam_vit", "map"),
        "text_cfg": {**TEXT, **NO_MASK},
        "custom_text": True,
        "init_logit_bias": -10,
    },
    # rotary positions, a prefix token, average pooling
    "eva": {"vision_cfg": timm_vision("seam_eva", "avg"), "text_cfg": TEXT, "custom_text": True},
    # attentional pooling, a class token behind the text
    "coca": {
        "vision_cfg": {**VISION, **POOLER, "output_tokens": True},
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "context_length": 76},
        "custom_text": True,
    },
    "convnext": {"vision_cfg": timm_vision("test_convnext", "avg"), "text_cfg": TEXT},
}


def _timm(kind: type, options: dict) -> torch.nn.Module:
    kept = {key: options[key] for key in ("num_classes", "global_pool") if key in options}
    model = kind(**SIZES, **kept)
    model.default_cfg = {}
    return model


@register_model
def seam_vit(pretrained: bool = False, **options) -> torch.nn.Module:
    return _timm(VisionTransformer, {**options, "global_pool": "map"})


@register_model
def seam_eva(pretrained: bool = False, **options) -> torch.nn.Module:
    return _timm(lambda **sizes: Eva(**sizes, use_rot_pos_emb=True, use_abs_pos_emb=False), options)


def write(folder: Path) -> dict[str, str]:
    """Write a file of weights for each kind; return the values of MODEL.BACKBONE.NAME by kind."""
    named = {}
    for kind, config in KINDS.items():
        (folder / f"seam-{kind}.json").write_text(json.dumps({"embed_dim": 48, **config}))
    open_clip.add_model_config(folder)
    for kind in KINDS:
        path = folder / f"{kind}.pt"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = open_clip.create_model(f"seam-{kind}").state_dict()
        if kind == "coca":  # open_clip does not initialise it, so it may contain NaN
            state["text_decoder.text_projection"].zero_()
        torch.save(state, path)
        named[kind] = f"open_clip:seam-{kind}/{path}"
    return named
