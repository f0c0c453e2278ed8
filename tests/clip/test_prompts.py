"""Prompt modules, and M sets in one forward against a loop over templates."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from causalclip.clip.backbone import build_clip
from causalclip.clip.encode import encode_classes, encode_image, encode_text
from causalclip.clip.encode_sets import encode_image_sets, encode_image_sets_twice, encode_text_sets
from causalclip.clip.injection import prompted
from causalclip.clip.interface import tokenize
from causalclip.clip.prompts import (
    ConditionalPrompts,
    CoupledPrompts,
    DecoupledPrompts,
    IndependentPrompts,
    TextPrompts,
    embed_words,
)
from causalclip.clip.texts import class_tokens

NAMES = ["zero", "double_decker bus", "cat"]
TEXT, VISION, EMBED = 96, 128, 40


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    clip = build_clip(
        vision_width=VISION, transformer_width=TEXT, transformer_heads=3, embed_dim=EMBED
    ).requires_grad_(False)
    for weight in clip.parameters():
        weight.add_(0.02 * torch.randn_like(weight))
    return clip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(4)


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32)


def test_init_words_are_their_embeddings(model):
    ids = tokenize("a photo of a")[0, 1:3]
    words = embed_words(model, "a_photo_of_a", 2)
    assert torch.equal(words, model.token_embedding(ids))
    words.zero_()
    assert model.token_embedding(ids).abs().min() > 0
    started = TextPrompts(2, TEXT, init=embed_words(model, "a photo", 2), n_classes=3).ctx
    assert torch.equal(started, embed_words(model, "a photo", 2).expand(3, -1, -1))
    with pytest.raises(ValueError, match="'a photo' has 2 tokens, fewer than n_ctx 3"):
        embed_words(model, "a photo", 3)


@pytest.mark.parametrize("n_ctx", [0, 2.0, True])
def test_the_number_of_context_tokens_must_be_a_positive_int(n_ctx):
    with pytest.raises(ValueError, match=f"n_ctx must be a positive int, got {n_ctx!r}"):
        TextPrompts(n_ctx, TEXT)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((2, 2, 0, 1), "n_ctx_text and depth_text must both be positive or both 0, got 2 and 0"),
        ((0, 0, 0, 1), "n_ctx_vision and depth_vision must both be positive or both 0"),
        ((2, 2, 1, -1), "depth_vision must be an int of at least 0, got -1"),
        ((3, 2, 1, 1), r"init must have shape \(3, 96\), got \(2, 96\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        IndependentPrompts(*sizes, TEXT, VISION, init=torch.zeros(2, TEXT))


def modules(model):
    words = embed_words(model, "a photo of a", 2)
    return {
        "text": TextPrompts(2, TEXT, init=words),
        "csc": TextPrompts(2, TEXT, n_classes=3),
        "coupled": CoupledPrompts(2, 3, TEXT, VISION, init=words),
        "independent": IndependentPrompts(2, 4, 3, 2, TEXT, VISION, init=words),
        "vision": IndependentPrompts(0, 4, 0, 2, TEXT, VISION),
    }


def test_coupled_image_prompts_are_projections_of_the_text_prompts(model):
    module, linear = modules(model)["coupled"], nn.functional.linear
    prompts = module()
    assert torch.equal(prompts.text[0], embed_words(model, "a photo", 2))
    assert torch.equal(prompts.image[0], linear(module.ctx, module.proj.weight, module.proj.bias))
    first, second = module.compound_prompt_projections
    assert torch.equal(first.weight, second.weight) and first.weight is not second.weight
    assert not torch.equal(first.weight, module.proj.weight)
    assert torch.equal(
        prompts.image[2], linear(module.compound_prompts_text[1], second.weight, second.bias)
    )


def test_the_conditional_context_is_shifted_by_the_image():
    module, features = ConditionalPrompts(2, TEXT, EMBED), torch.randn(5, EMBED)
    net = module.meta_net
    hidden = (features @ net.linear1.weight.T + net.linear1.bias).clamp(min=0)
    shift = hidden @ net.linear2.weight.T + net.linear2.bias
    assert net.linear1.out_features == EMBED // 16
    expected = torch.stack([module.ctx + row for row in shift])
    torch.testing.assert_close(module(features).text[0], expected)
    decoupled = DecoupledPrompts(lambda: ConditionalPrompts(2, TEXT, EMBED), 3)
    assert decoupled(features).text[0].shape == (3, 5, 2, TEXT)


def coupled(model):
    return CoupledPrompts(2, 3, TEXT, VISION, init=embed_words(model, "a photo of a", 2))


def test_templates_start_near_the_same_words_but_apart(model):
    words = embed_words(model, "a photo", 2)
    contexts = DecoupledPrompts(lambda: coupled(model), 4, noise=0.02)().text[0]
    noise = (contexts - words).flatten(1)
    assert noise.std().item() == pytest.approx(0.02, rel=0.15)
    assert torch.corrcoef(noise).triu(1).abs().max() < 0.3


def test_what_is_random_anyway_gets_no_more_noise():
    make = lambda: IndependentPrompts(4, 4, 2, 2, 500, 500)  # noqa: E731
    for weight in DecoupledPrompts(make, 3, noise=1.0).parameters():
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_templates_can_share_a_submodule_and_still_differ_in_their_words():
    words = torch.zeros(2, 8)
    shared = ["proj", "compound_prompt_projections"]
    prompts = DecoupledPrompts(lambda: CoupledPrompts(2, 2, 8, 6, init=words), 3, shared=shared)
    first, *others = prompts.templates
    for other in others:
        assert all(getattr(other, name) is getattr(first, name) for name in shared)
        assert not torch.equal(other.ctx, first.ctx)
    alone = sum(p.numel() for p in first.parameters())
    words_and_deep = 2 * 2 * 8
    assert sum(p.numel() for p in prompts.parameters()) == alone + 2 * words_and_deep


@pytest.mark.parametrize("kind", ["coupled", "vision"])
@pytest.mark.parametrize("views", [True, False], ids=["a view each", "one image"])
def test_image_sets_equal_a_loop_over_templates(model, images, kind, views):
    decoupled = DecoupledPrompts(lambda: modules(model)[kind], 4)
    images = torch.randn(2, 4, 3, 32, 32) if views else images
    features = encode_image_sets(model, images, decoupled())
    assert features.shape == (2, 4, EMBED)
    for m, template in enumerate(decoupled.templates):
        with prompted(model, image=template().image):
            alone = encode_image(model, images[:, m] if views else images)
        torch.testing.assert_close(features[:, m], alone)


@pytest.mark.parametrize("kind", ["text", "vision"])
@pytest.mark.parametrize("views", [True, False], ids=["a view each", "one image"])
def test_image_sets_may_have_image_projections_of_their_own(model, images, kind, views):
    shape = model.visual.proj.shape
    decoupled = DecoupledPrompts(lambda: modules(model)[kind], 4, projection=shape, scale=2.0)
    torch.nn.init.normal_(decoupled.image_projection, std=0.02)
    images = torch.randn(2, 4, 3, 32, 32) if views else images
    features = encode_image_sets(model, images, decoupled())
    again, plain = encode_image_sets_twice(model, images, decoupled())
    torch.testing.assert_close(again, features)
    for m, template in enumerate(decoupled.templates):
        own = images[:, m] if views else images
        torch.testing.assert_close(plain[:, m], encode_image(model, own))
        changed = copy.deepcopy(model)
        changed.visual.proj.data += 2 * decoupled.image_projection[m].detach()
        with prompted(changed, image=template().image):
            torch.testing.assert_close(features[:, m], encode_image(changed, own))
    features.square().sum().backward()
    assert decoupled.image_projection.grad.any(dim=(1, 2)).all()


def test_gradients_through_sets_equal_those_of_the_loop_and_reach_prompts_alone(model, images):
    decoupled = DecoupledPrompts(lambda: coupled(model), 3)
    texts = class_tokens(NAMES, n_ctx=2, prefix="a photo of a")
    weights, prompts = list(decoupled.parameters()), decoupled()
    z, t = encode_image_sets(model, images, prompts), encode_text_sets(model, texts, prompts)
    batch = torch.einsum("bme,mke->bmk", z, t)
    gradients = torch.autograd.grad(batch.square().sum(), weights)
    loop = 0
    for template in decoupled.templates:
        with prompted(model, image=template().image):
            z = encode_image(model, images)
        loop = loop + (z @ encode_classes(model, texts, template()).T).square().sum()
    for ours, oracle in zip(gradients, torch.autograd.grad(loop, weights), strict=True):
        assert ours.any()
        torch.testing.assert_close(ours, oracle, rtol=1e-4, atol=1e-5 * oracle.abs().max().item())
    assert all(weight.grad is None for weight in model.parameters())


def test_templates_without_image_prompts_read_a_shared_image_once_and_without_text_the_text(
    model, images
):
    text = DecoupledPrompts(lambda: modules(model)["text"], 4)()
    image = DecoupledPrompts(lambda: modules(model)["vision"], 4)()
    seen = []
    handle = model.visual.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    features = encode_image_sets(model, images, text)
    handle.remove()
    assert seen == [2]
    assert torch.equal(features, model.encode_image(images)[:, None].expand(-1, 4, -1))
    texts = class_tokens(NAMES, n_ctx=0, prefix="a photo of a")
    expected = encode_text(model, texts.tokens).expand(4, -1, -1)
    torch.testing.assert_close(encode_text_sets(model, texts, image), expected)


def test_sets_that_do_not_fit_are_refused(model, images):
    prompts = DecoupledPrompts(lambda: coupled(model), 4)()
    for encode in (encode_image_sets, encode_image_sets_twice):
        with pytest.raises(ValueError, match="images must have 4 views, one per template, got 3"):
            encode(model, torch.zeros(2, 3, 3, 32, 32), prompts)
    with pytest.raises(ValueError, match="one leading axis of M sets"):
        encode_image_sets(model, images, coupled(model)())
