"""MMA: its adapter written out, the gradient its small scale does not touch, what it refuses."""

from __future__ import annotations

import pytest
import torch

from causalclip.clip.adapters import CoupledAdapters
from causalclip.clip.interface import tokenize
from causalclip.predict.export import exported_prompts
from causalclip.runs.recipes import recipes_of
from causalclip.trainers.mma import MMA


@pytest.fixture(scope="module")
def adapters() -> CoupledAdapters:
    torch.manual_seed(0)
    return CoupledAdapters(2, 3, 4, text_width=6, vision_width=10, scale=0.01)


def written_out(adapters: CoupledAdapters, tower: str, layer: int, x):
    def linear(name, x):
        weight, bias = (adapters.get_parameter(f"{name}.{kind}") for kind in ("weight", "bias"))
        return x @ weight.T + bias

    hidden = linear(f"{tower}.{layer}.down.0", x).clamp(min=0)
    hidden = linear(f"shared_adapter.{layer}.0", hidden).clamp(min=0)
    return 0.01 * linear(f"{tower}.{layer}.up", hidden)


@pytest.mark.parametrize(("tower", "width"), [("text_adapter", 6), ("visual_adapter", 10)])
def test_an_adapter_is_its_formula_with_the_gradient_of_unscaled_weights(adapters, tower, width):
    prompts = adapters()
    added = prompts.text_additions if tower == "text_adapter" else prompts.image_additions
    assert set(added.adapters) == {1, 2} and not added.tokens
    x = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(3)).requires_grad_()
    ours, oracle = added.adapters[1](x), written_out(adapters, tower, 2, x)
    torch.testing.assert_close(ours, oracle)
    learned = [
        *adapters.get_submodule(f"{tower}.2").parameters(),
        *adapters.shared_adapter["2"].parameters(),
    ]
    gradients = [torch.autograd.grad(y.square().sum(), [x, *learned]) for y in (ours, oracle)]
    torch.testing.assert_close(gradients[0][0], gradients[1][0])  # what goes on is the true one
    for one, other in zip(gradients[0][1:], gradients[1][1:], strict=True):
        assert one.any()
        torch.testing.assert_close(one, other / 0.01)


def test_its_text_learns_and_is_kept_for_an_evaluation(make_trainer, tmp_path):
    given = ("DATASET.TEMPLATE", "a scan of {}.", "TRAINER.MMA.ADAPTER_SCALE", 1.0)
    trainer = make_trainer("MMA", tmp_path, "TRAINER.MMA.ADAPTER_START", 1, *given)
    assert isinstance(trainer, MMA)
    scans = tokenize([f"a scan of {name}." for name in trainer.classnames])
    assert torch.equal(trainer.class_tokens.tokens, scans)  # before the published words
    with torch.no_grad():
        text, images = trainer.evaluation_text(), torch.rand(2, 3, 32, 32)
        assert torch.equal(trainer.logits(images, text), trainer.logits(images))
        assert torch.equal(trainer.learned_text(trainer.classnames), text)
        assert not torch.allclose(text, trainer.clip.encode_text(scans), atol=1e-3)
    with pytest.raises(ValueError, match="MMA cannot be exported: it learns inside the blocks"):
        exported_prompts(trainer)


def test_batches_of_imagenet_are_larger_as_published():
    recipes = recipes_of("MMA")
    larger = ("DATALOADER.TRAIN_X.BATCH_SIZE", "128")
    assert recipes.extra_settings("xd", "imagenet", "16") == larger
    assert recipes.extra_settings("base2new", "dtd", "16") == ()
