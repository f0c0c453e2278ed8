"""Weights in files: the bundled format, and the digest."""

from __future__ import annotations

import pytest
import torch

from causalclip.clip import backbone
from causalclip.clip.backbone import build_clip, load_clip
from causalclip.clip.openai_clip import tokenize
from causalclip.clip.weights import save_tiny, weights_digest

SMALL = {"vocab_size": 49408, "vision_layers": 2, "transformer_layers": 2}
RESNET = {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "transformer_layers": 1}


def test_the_digest_sees_every_weight():
    model = build_clip(**SMALL)
    before = weights_digest(model)
    with torch.no_grad():
        model.logit_scale.add_(1e-6)
        changed = weights_digest(model)
        model.logit_scale.sub_(1e-6)
    assert changed != before


def trained(rows, **options):
    """A model whose weights and given token rows have changed since it was built."""
    model = build_clip(**{**SMALL, **options}, seed=7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "token_embedding.weight":
                weight.add_(0.1)
        model.token_embedding.weight[rows] += 0.1
    return model


def test_the_bundled_format_round_trips_bit_for_bit(tmp_path, monkeypatch):
    rows = [320, 49406, 49407, 5]
    model = trained(rows, transformer_heads=2)  # not the 64-wide heads a state dict implies
    save_tiny(model, rows, tmp_path / "tiny.safetensors", fill_seed=7, metadata={"by": "test"})
    monkeypatch.setitem(backbone.BUNDLED, "tiny", tmp_path / "tiny.safetensors")
    for name in ("tiny", str(tmp_path / "tiny.safetensors")):
        loaded = load_clip(name)
        assert weights_digest(loaded) == weights_digest(model)
        assert loaded.transformer.resblocks[0].attn.num_heads == 2
        assert torch.equal(loaded.encode_text(tokenize("a")), model.encode_text(tokenize("a")))
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.safetensors"]


def test_the_bundled_format_stays_under_eight_megabytes(tmp_path):
    shape = {"vision_width": 128, "transformer_width": 128, "transformer_heads": 2}
    depth = {"vision_layers": 4, "transformer_layers": 4, "embed_dim": 64}
    path = tmp_path / "tiny.safetensors"
    save_tiny(build_clip(**shape, **depth, seed=1), range(1000), path, fill_seed=1)
    assert path.stat().st_size < 8e6


def test_saving_refuses_to_lose_trained_rows(tmp_path):
    with pytest.raises(ValueError, match=r"token rows \[9\] are not in token_rows"):
        save_tiny(trained([5, 9]), [5], tmp_path / "tiny.safetensors", fill_seed=7)
    with pytest.raises(ValueError, match="differ from those drawn with fill_seed 8"):
        save_tiny(trained([5]), [5], tmp_path / "tiny.safetensors", fill_seed=8)
    with pytest.raises(ValueError, match="ViT models only"):
        save_tiny(build_clip(**RESNET), [5], tmp_path / "tiny.safetensors")
    assert list(tmp_path.iterdir()) == []
