"""MMA and MMA++: adapters written out, gradients, what is drawn, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from causalclip.clip.adapters import ConsistentAdapters, CoupledAdapters
from causalclip.clip.injection import prompted
from causalclip.clip.interface import tokenize
from causalclip.predict.export import exported_prompts
from causalclip.runs.recipes import recipes_of
from causalclip.trainers.mma import MMA
from causalclip.trainers.mmapp import MMApp


@pytest.fixture(scope="module")
def adapters() -> CoupledAdapters:
    torch.manual_seed(0)
    return CoupledAdapters(2, 3, 4, text_width=6, vision_width=10, scale=0.01)


def written_out(adapters: CoupledAdapters, tower: str, layer: int, x, scale=0.01):
    def linear(name, x):
        weight, bias = (adapters.get_parameter(f"{name}.{kind}") for kind in ("weight", "bias"))
        return x @ weight.T + bias

    hidden = linear(f"{tower}.{layer}.down.0", x).clamp(min=0)
    hidden = linear(f"shared_adapter.{layer}.0", hidden).clamp(min=0)
    return scale * linear(f"{tower}.{layer}.up", hidden)


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


def test_the_adapters_of_mma_pp_have_a_scale_for_each_mode_and_leave_out_in_training():
    torch.manual_seed(0)
    adapters = ConsistentAdapters(2, 3, 40, 6, 10, scale=0.5, test_scale=0.2, dropout=0.5)
    assert all(adapters.get_parameter(f"shared_adapter.{layer}.0.bias").any() for layer in (2, 3))
    x = torch.randn(7, 10)
    for train, given, expected in ((False, None, 0.2), (False, 0.3, 0.3), (True, None, 0.5)):
        added = adapters.train(train)(given).image_additions.adapters[1]
        oracle = written_out(adapters, "visual_adapter", 2, x, expected)
        assert torch.allclose(added(x), oracle) != train
        assert torch.equal(added(x), added(x)) != train
    mean = torch.stack([added(x) for _ in range(4000)]).mean(0)  # of what is left out
    torch.testing.assert_close(mean, oracle, atol=0.1, rtol=0)


def test_mma_pp_draws_a_sentence_of_each_class_by_step_and_tests_on_the_mean_of_all(
    make_trainer, tmp_path
):
    path = tmp_path / "own.json"
    trainer = make_trainer("MMA", tmp_path / "names")
    own = {
        name: [f"{name} {i}." for i in range(i + 2)] for i, name in enumerate(trainer.classnames)
    }
    path.write_text(json.dumps(own))
    trainer = make_trainer("MMApp", tmp_path / "own", "DATASET.DESCRIPTIONS", str(path))
    assert isinstance(trainer, MMApp)
    drawn = []
    for epoch, batch in ((0, 0), (0, 1), (1, 0), (1, 0)):
        trainer.epoch, trainer.batch_idx = epoch, batch
        tokens = trainer.drawn_texts(trainer.draws()).tokens
        for row, sentences in zip(tokens, own.values(), strict=True):
            assert any(torch.equal(row, one) for one in tokenize(sentences))
        drawn.append(tokens)
    assert [torch.equal(drawn[-1], tokens) for tokens in drawn] == [False, False, True, True]
    trainer.set_model_mode("eval")
    with torch.no_grad(), prompted(trainer.clip, text_additions=trainer.model().text_additions):
        each = [trainer.clip.encode_text(tokenize(sentences)) for sentences in own.values()]
    expected = torch.stack([F.normalize(features, dim=-1).mean(0) for features in each])
    torch.testing.assert_close(trainer.evaluation_text(), F.normalize(expected, dim=-1))
    one = make_trainer("MMApp", tmp_path / "one", "DATASET.TEMPLATE", "a scan of {}.")
    assert one.sentences(["a_b"]) == [["a scan of a b."]]
    assert len(make_trainer("MMApp", tmp_path / "all").sentences(["a_b"])[0]) == 80
