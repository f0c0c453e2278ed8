"""CLIP-LoRA against the published code, and its weights merged into plain CLIPs.

golden/clip_lora.npz: MaxZanella/CLIP-LoRA @358f0d7 (apply_lora, rank 2, q k v, both towers) on
golden/weights.py's CLIP and start, three steps of AdamW, rate 1e-3. Its dropout is 1e-12: without
any, the published gradients are those of the unchanged weights.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from golden import weights
from golden.cases import assert_close, logits_of, take_step, without_data
from torch.nn import functional as F

from causalclip.clip.backbone import load_clip
from causalclip.clip.encode import encode_image
from causalclip.clip.interface import tokenize
from causalclip.clip.low_rank import LowRankWeights, merged_state
from causalclip.clip.openai_clip import CLIP
from causalclip.clip.weights import weights_digest
from causalclip.trainers.clip_lora import CLIP_LoRA

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "clip_lora.npz")
IMAGES, LABELS = weights.images(0), weights.labels(0)
TEXTS = tokenize([f"a photo of a {name}, a type of pet." for name in weights.SPOKEN])


@pytest.fixture
def trainer(clip_files):
    """CLIP-LoRA on the golden CLIP, with the start that the published code had."""
    adamw = {"NAME": "adamw", "LR": 1e-3, "WEIGHT_DECAY": 0.01}
    built = without_data(CLIP_LoRA, clip_files["small"], optim=adamw, DROPOUT=0.0)
    for name, parameter in built.model.named_parameters():
        start = weights.learnable(f"lora.{name}", tuple(parameter.shape))
        parameter.data.copy_(5 * start)
    return built


def test_logits_loss_and_gradients_equal_the_published_ones(trainer):
    assert_close(logits_of(trainer), GOLDEN["logits"], 1e-5, "logits")
    loss, _ = trainer.loss(IMAGES, LABELS)
    assert_close(loss, GOLDEN["losses"][0], 1e-5, "loss")
    loss.backward()
    for name, parameter in trainer.model.named_parameters():
        assert_close(parameter.grad, GOLDEN[f"gradient/{name}"], 1e-5, name)


def test_three_steps_end_in_the_published_logits(trainer):
    losses = [take_step(trainer, i) for i in range(3)]
    assert_close(losses, GOLDEN["losses"], 1e-4, "losses")
    assert_close(logits_of(trainer), GOLDEN["logits_after"], 1e-4, "logits")


def openai(sizes):
    names = ("embed_dim", "image_resolution", "vision_layers", "vision_width", "vision_patch_size")
    names += ("context_length", "vocab_size", "transformer_width", "transformer_heads")
    return CLIP(*(sizes[name] for name in (*names, "transformer_layers")))


def from_open_clip(sizes):
    vision = {"layers": sizes["vision_layers"], "width": sizes["vision_width"], "head_width": 64}
    vision |= {"patch_size": sizes["vision_patch_size"], "image_size": sizes["image_resolution"]}
    text = {"width": sizes["transformer_width"], "layers": sizes["transformer_layers"]}
    text |= {"heads": sizes["transformer_heads"]}
    return open_clip.CLIP(sizes["embed_dim"], vision, text, quick_gelu=True)


@pytest.mark.parametrize("build", [openai, from_open_clip])
def test_the_merged_clip_is_a_plain_one_with_the_same_features(build, trainer):
    trainer.set_model_mode("eval")
    with torch.no_grad():
        prompts = trainer.model()
        expected = trainer.image_features(IMAGES, prompts), trainer.text_features(prompts)
        plain = build(weights.CLIP_SHAPES["small"]).eval()
        before = trainer.clip.encode_image(IMAGES)
        plain.load_state_dict(merged_state(trainer.clip, prompts))
        merged = plain.encode_image(IMAGES), plain.encode_text(TEXTS)
    for ours, theirs in zip(expected, merged, strict=True):
        torch.testing.assert_close(F.normalize(ours), F.normalize(theirs), rtol=0, atol=1e-5)
    assert not torch.allclose(before, merged[0], rtol=1e-2)


def test_clip_is_left_as_it_is_and_the_start_changes_nothing(clip_files):
    clip = load_clip(clip_files["small"])
    digest, model = weights_digest(clip), LowRankWeights(clip, rank=3, dropout=0.5)
    changes = model().weights
    assert len(changes) == 6
    assert all(not change.any() for change in changes.values())
    torch.nn.init.normal_(model.image_B)
    with torch.no_grad():
        before = encode_image(clip, IMAGES)
        fake = SimpleNamespace(clip=clip)
        changed = CLIP_LoRA.image_features(fake, IMAGES, model())
        assert torch.equal(encode_image(clip, IMAGES), before)
    assert not torch.allclose(before, changed, rtol=1e-2)
    assert weights_digest(clip) == digest


def test_dropout_leaves_out_columns_of_a_in_training_alone(clip_files):
    model = LowRankWeights(load_clip(clip_files["small"]), parts="k", dropout=0.5)
    torch.nn.init.ones_(model.text_B)
    torch.nn.init.ones_(model.text_A)
    width = 128
    (name, *_) = model().weights
    columns = model().weights[name][width : 2 * width, :].sum(0) / (2 * width)
    assert set(columns.tolist()) == {0.0, 2.0}
    assert 0.3 < (columns == 0).float().mean() < 0.7
    change = model.eval()().weights[name]
    assert not change[:width].any() and not change[2 * width :].any()
    torch.testing.assert_close(change[width : 2 * width], torch.full((width, width), 2.0))
