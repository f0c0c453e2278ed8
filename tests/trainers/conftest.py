"""Shared by the tests of the trainers."""

from __future__ import annotations

import pytest

from causalclip.clip.backbone import build_clip
from causalclip.clip.weights import save_tiny


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory) -> str:
    """File of a CLIP with 32 features, so that few images give enough pairs."""
    path = tmp_path_factory.mktemp("clip") / "small.safetensors"
    save_tiny(build_clip(vision_layers=2, transformer_layers=2, embed_dim=32), [], path)
    return str(path)
