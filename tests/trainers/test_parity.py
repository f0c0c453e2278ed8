"""Our trainers against the published ones, on golden tensors made by running those (golden/)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import weights
from golden.cases import CASES, MANIFEST, assert_close, build, golden_file, logits_of, take_step

from causalclip.clip.backbone import load_clip
from causalclip.clip.openai_clip import CLIP
from causalclip.clip.published import our_name

AT_ONCE = 1e-5  # relative to a tensor's largest entry: logits and losses
GRADIENTS = 2e-5  # fp32 sums in the order of this processor: 1.2e-5 is the largest seen
AFTER_STEPS = 1e-4  # the same after three optimiser steps


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, np.ndarray]]:
    return {method: golden_file(method) for method in MANIFEST["methods"]}


def assert_kept(file, prefix: str, tensor: torch.Tensor, tolerance: float) -> None:
    """Compare a tensor with the golden one, or its sketches where it was too large to keep."""
    for name, value in weights.kept(prefix, tensor).items():
        assert_close(value, file[name], tolerance, name)


def test_the_clip_is_the_one_the_published_trainers_ran_on(clip_files):
    for shape, path in clip_files.items():
        state = load_clip(path).state_dict()
        assert weights.digest(state) == MANIFEST["clip_sha256"][shape], (
            f"{shape}: the rule in golden/weights.py gives other numbers here"
        )


def test_the_clip_has_no_width_of_the_released_models(clip_files):
    model = load_clip(clip_files["small"])
    assert isinstance(model, CLIP)
    widths = {model.visual.conv1.weight.shape[0], *model.text_projection.shape}
    assert len(widths) == 3 and not widths & {512, 768}


@pytest.mark.parametrize(("method", "case"), CASES)
def test_logits_gradients_and_the_weights_after_three_steps_equal_the_published_ones(
    method, case, clip_files, golden
):
    trainer, file = build(method, case, clip_files), golden[method]
    if f"{case}/start/prompt_learner.ctx" in file:
        assert_close(trainer.model.ctx, file[f"{case}/start/prompt_learner.ctx"], 0, "start")
    assert_close(logits_of(trainer), file[f"{case}/logits"], AT_ONCE, "logits")
    trainer.set_model_mode("train")
    loss, _ = trainer.loss(weights.images(0), weights.labels(0))
    assert_close(loss, file[f"{case}/losses"][:1], AT_ONCE, "loss")
    loss.backward()
    learnable = MANIFEST["methods"][method]["cases"][case]["learnable"]
    for name in learnable:
        gradient = trainer.model.get_parameter(our_name(name)).grad
        assert_kept(file, f"{case}/gradient/{name}", gradient, GRADIENTS)
    losses = [take_step(trainer, i) for i in range(3)]
    assert_close(losses, file[f"{case}/losses"], AFTER_STEPS, "losses")
    for name in learnable:
        weight = trainer.model.get_parameter(our_name(name))
        assert_kept(file, f"{case}/after/{name}", weight, AFTER_STEPS)
    assert_close(logits_of(trainer), file[f"{case}/logits_after"], AFTER_STEPS, "logits")


@pytest.mark.parametrize("case", MANIFEST["methods"]["promptsrc"]["cases"])
def test_promptsrc_ends_in_the_published_gaussian_average(case, clip_files, golden):
    trainer, file = build("promptsrc", case, clip_files), golden["promptsrc"]
    for i in range(3):  # three epochs of one batch
        take_step(trainer, i, num_batches=1)
    for name in MANIFEST["methods"]["promptsrc"]["cases"][case]["learnable"]:
        weight = trainer.model.get_parameter(our_name(name))
        assert_kept(file, f"{case}/gpa/{name}", weight, AFTER_STEPS)
    assert_close(logits_of(trainer), file[f"{case}/logits_gpa"], AFTER_STEPS, "logits")
