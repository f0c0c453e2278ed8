"""INPUT as the backbone learned: it overrides the configuration, and says so."""

from __future__ import annotations

import open_clip
import pytest
import torch
from PIL import Image

from causalclip import plugin
from causalclip.engine.backbone_input import as_the_backbone_reads, image_transform


@pytest.fixture
def cfg():
    cfg = plugin.default_cfg()
    cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS = (32, 32), ["normalize"]
    return cfg


def test_a_backbone_that_does_not_say_it_leaves_the_configuration(cfg, capsys):
    cfg.MODEL.BACKBONE.NAME = "tiny"
    assert as_the_backbone_reads(cfg) is cfg and capsys.readouterr().out == ""
    assert image_transform(cfg) is None


def test_the_models_own_preprocessing_takes_the_place_of_input_with_a_line_in_the_log(cfg, capsys):
    cfg.MODEL.BACKBONE.NAME = "open_clip:ViT-B-16-SigLIP2-256/webli"
    seen = as_the_backbone_reads(cfg)
    line = capsys.readouterr().out
    assert line.startswith("As open_clip:ViT-B-16-SigLIP2-256/webli learned: INPUT.SIZE (256, 256)")
    assert "INPUT.RESIZE_MODE squash" in line and "INTERPOLATION" not in line
    assert (cfg.INPUT.SIZE, seen.INPUT.SIZE) == ((32, 32), (256, 256))
    assert seen.is_frozen()
    assert as_the_backbone_reads(seen) is seen


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP2/webli", "ViT-B-16/openai"])
def test_test_images_are_what_open_clips_own_transform_makes_of_them(cfg, name):
    from dassl.data.transforms import build_transform

    cfg.MODEL.BACKBONE.NAME = f"open_clip:{name}"
    cfg = as_the_backbone_reads(cfg)
    picture = Image.effect_noise((300, 200), 80).convert("RGB")
    own = image_transform(cfg) or build_transform(cfg, is_train=False)
    known = open_clip.get_pretrained_cfg(*name.split("/"))
    options = {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    theirs = open_clip.image_transform(224, is_train=False, **options)
    assert torch.allclose(own(picture), theirs(picture), atol=1e-6)
