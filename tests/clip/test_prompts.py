"""Prompt modules, class texts, and M sets in one forward against a loop over templates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from causalclip.clip import text_tower
from causalclip.clip.backbone import build_clip, tokenize
from causalclip.clip.encode import encode_image, encode_text
from causalclip.clip.injection import prompted
from causalclip.clip.prompt_set import (
    PromptSet,
    encode_classes,
    encode_image_sets,
    encode_image_sets_twice,
    encode_text_sets,
)
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


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_positions_follow_the_length_of_each_name(model, position):
    """Putting the placeholder's own embedding at the positions must change nothing."""
    texts = class_tokens(NAMES, n_ctx=4, position=position)
    own = PromptSet(text=(embed_words(model, "X X X X", 4),))
    expected = model.encode_text(texts.tokens)
    torch.testing.assert_close(encode_classes(model, texts, own), expected)


def test_init_words_are_their_embeddings(model):
    ids = tokenize("a photo of a")[0, 1:3]
    words = embed_words(model, "a_photo_of_a", 2)
    assert torch.equal(words, model.token_embedding(ids))
    words.zero_()
    assert model.token_embedding(ids).abs().min() > 0
    with pytest.raises(ValueError, match="'a photo' has 2 tokens, fewer than n_ctx 3"):
        embed_words(model, "a photo", 3)


@pytest.mark.parametrize("n_ctx", [0, -1, 2.0, True, "4"])
def test_the_number_of_context_tokens_must_be_a_positive_int(n_ctx):
    with pytest.raises(ValueError, match=f"n_ctx must be a positive int, got {n_ctx!r}"):
        TextPrompts(n_ctx, TEXT)


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"init must have shape \(2, 96\), got \(3, 96\)"):
        TextPrompts(2, TEXT, init=torch.zeros(3, TEXT))


def test_random_starts_have_standard_deviation_two_hundredths():
    module = IndependentPrompts(50, 50, 2, 2, 200, 200)
    for weight in module.parameters():
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert abs(weight.mean().item()) < 1e-3


def modules(model):
    words = embed_words(model, "a photo of a", 2)
    return {
        "text": TextPrompts(2, TEXT, init=words),
        "csc": TextPrompts(2, TEXT, n_classes=3),
        "coupled": CoupledPrompts(2, 3, TEXT, VISION, init=words),
        "independent": IndependentPrompts(2, 4, 3, 2, TEXT, VISION, init=words),
        "vision": IndependentPrompts(0, 4, 0, 2, TEXT, VISION),
    }


def test_learned_numbers_carry_the_published_names(model):
    names = {kind: sorted(module.state_dict()) for kind, module in modules(model).items()}
    assert names["text"] == names["csc"] == ["ctx"]
    assert names["coupled"] == sorted(
        ["ctx", "proj.weight", "proj.bias"]
        + [f"compound_prompts_text.{i}" for i in (0, 1)]
        + [f"compound_prompt_projections.{i}.{w}" for i in (0, 1) for w in ("weight", "bias")]
    )
    conditional = sorted(ConditionalPrompts(2, TEXT, EMBED).state_dict())
    assert conditional[0] == "ctx" and conditional[1:] == sorted(
        f"meta_net.linear{i}.{w}" for i in (1, 2) for w in ("weight", "bias")
    )
    assert names["vision"] == ["ctx_vision", "deep_vision.0"]


def test_prompts_have_one_tensor_per_depth(model):
    shapes = {
        kind: ([tuple(p.shape) for p in s.text], [tuple(p.shape) for p in s.image])
        for kind, s in ((kind, module()) for kind, module in modules(model).items())
    }
    assert shapes == {
        "text": ([(2, TEXT)], []),
        "csc": ([(3, 2, TEXT)], []),
        "coupled": ([(2, TEXT)] * 3, [(2, VISION)] * 3),
        "independent": ([(2, TEXT)] * 3, [(4, VISION)] * 2),
        "vision": ([], [(4, VISION)] * 2),
    }


def test_coupled_image_prompts_are_projections_of_the_text_prompts(model):
    module = modules(model)["coupled"]
    prompts = module()
    assert torch.equal(prompts.text[0], embed_words(model, "a photo", 2))
    linear = nn.functional.linear
    assert torch.equal(prompts.image[0], linear(module.ctx, module.proj.weight, module.proj.bias))
    first, second = module.compound_prompt_projections
    assert torch.equal(first.weight, second.weight) and first.weight is not second.weight
    assert not torch.equal(first.weight, module.proj.weight)
    assert torch.equal(
        prompts.image[2], linear(module.compound_prompts_text[1], second.weight, second.bias)
    )


def test_class_specific_contexts_start_from_the_words_for_every_class(model):
    words = embed_words(model, "a photo", 2)
    ctx = TextPrompts(2, TEXT, init=words, n_classes=3).ctx
    assert torch.equal(ctx, words.expand(3, -1, -1)) and ctx.is_contiguous()


def test_class_specific_contexts_meet_their_own_class(model):
    texts = class_tokens(NAMES, n_ctx=2)
    prompts = TextPrompts(2, TEXT, n_classes=3)()
    features = encode_classes(model, texts, prompts)
    for k, name in enumerate(NAMES):
        own = PromptSet(text=(prompts.text[0][k],))
        alone = encode_classes(model, class_tokens([name], n_ctx=2), own)
        torch.testing.assert_close(features[k : k + 1], alone)


def test_class_specific_contexts_do_not_transfer(model):
    prompts = TextPrompts(2, TEXT, n_classes=5)()
    with pytest.raises(ValueError, match="contexts of 5 classes cannot encode 3 classes"):
        encode_classes(model, class_tokens(NAMES, n_ctx=2), prompts)


def test_the_conditional_context_is_shifted_by_the_image():
    module = ConditionalPrompts(2, TEXT, EMBED)
    features = torch.randn(5, EMBED)
    net = module.meta_net
    hidden = (features @ net.linear1.weight.T + net.linear1.bias).clamp(min=0)
    shift = hidden @ net.linear2.weight.T + net.linear2.bias
    assert net.linear1.out_features == EMBED // 16
    expected = torch.stack([module.ctx + row for row in shift])
    torch.testing.assert_close(module(features).text[0], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 2, 0, 1), "n_ctx_text and depth_text must both be positive or both 0, got 2 and 0"),
        ((0, 0, 0, 1), "n_ctx_vision and depth_vision must both be positive or both 0"),
        ((2, 2, 1, -1), "depth_vision must be an int of at least 0, got -1"),
    ],
)
def test_unpaired_depths_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        IndependentPrompts(*arguments, TEXT, VISION)


def coupled(model):
    return CoupledPrompts(2, 3, TEXT, VISION, init=embed_words(model, "a photo of a", 2))


def test_templates_start_near_the_same_words_but_apart(model):
    words = embed_words(model, "a photo", 2)
    contexts = DecoupledPrompts(lambda: coupled(model), 4, noise=0.02)().text[0]
    noise = (contexts - words).flatten(1)
    assert noise.std().item() == pytest.approx(0.02, rel=0.15)
    assert torch.corrcoef(noise).triu(1).abs().max() < 0.3


def test_what_is_random_anyway_gets_no_more_noise(model):
    make = lambda: IndependentPrompts(4, 4, 2, 2, 500, 500)  # noqa: E731
    for weight in DecoupledPrompts(make, 3, noise=1.0).parameters():
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_single_template_is_the_plain_module(model):
    torch.manual_seed(0)
    plain = coupled(model).state_dict()
    torch.manual_seed(0)
    one = DecoupledPrompts(lambda: coupled(model), 1).templates[0].state_dict()
    assert all(torch.equal(one[name], value) for name, value in plain.items())


@pytest.mark.parametrize("at_once", [1, 20_000, 2**25], ids=["one", "a few", "all"])
@pytest.mark.parametrize("kind", ["coupled", "csc", "independent"])
def test_text_sets_equal_a_loop_over_templates(model, kind, at_once, monkeypatch):
    monkeypatch.setattr(text_tower, "AT_ONCE", at_once)
    decoupled = DecoupledPrompts(lambda: modules(model)[kind], 4)
    texts = class_tokens(NAMES, n_ctx=2, prefix="a photo of a")
    features = encode_text_sets(model, texts, decoupled())
    loop = [encode_classes(model, texts, template()) for template in decoupled.templates]
    torch.testing.assert_close(features, torch.stack(loop))


@pytest.mark.parametrize("kind", ["coupled", "vision"])
@pytest.mark.parametrize("views", [True, False], ids=["a view each", "one image"])
def test_image_sets_equal_a_loop_over_templates(model, images, kind, views):
    decoupled = DecoupledPrompts(lambda: modules(model)[kind], 4)
    if views:
        images = torch.randn(2, 4, 3, 32, 32)
    features = encode_image_sets(model, images, decoupled())
    assert features.shape == (2, 4, EMBED)
    for m, template in enumerate(decoupled.templates):
        with prompted(model, image=template().image):
            alone = encode_image(model, images[:, m] if views else images)
        torch.testing.assert_close(features[:, m], alone)


def test_gradients_through_sets_equal_those_of_the_loop(model, images):
    decoupled = DecoupledPrompts(lambda: coupled(model), 3)
    texts = class_tokens(NAMES, n_ctx=2, prefix="a photo of a")
    weights = list(decoupled.parameters())

    prompts = decoupled()
    batch = torch.einsum(
        "bme,mke->bmk",
        encode_image_sets(model, images, prompts),
        encode_text_sets(model, texts, prompts),
    )
    gradients = torch.autograd.grad(batch.square().sum(), weights)

    loop = 0
    for template in decoupled.templates:
        with prompted(model, image=template().image):
            z = encode_image(model, images)
        loop = loop + (z @ encode_classes(model, texts, template()).T).square().sum()
    for ours, oracle in zip(gradients, torch.autograd.grad(loop, weights), strict=True):
        torch.testing.assert_close(ours, oracle, rtol=1e-4, atol=1e-5 * oracle.abs().max().item())


def test_text_only_templates_read_a_shared_image_once(model, images, monkeypatch):
    decoupled = DecoupledPrompts(lambda: modules(model)["text"], 4)
    seen = []
    handle = model.visual.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    features = encode_image_sets(model, images, decoupled())
    handle.remove()
    assert seen == [2]
    assert torch.equal(features, model.encode_image(images)[:, None].expand(-1, 4, -1))


def test_image_only_templates_share_the_text(model):
    decoupled = DecoupledPrompts(lambda: modules(model)["vision"], 4)
    texts = class_tokens(NAMES, n_ctx=0, prefix="a photo of a")
    features = encode_text_sets(model, texts, decoupled())
    expected = encode_text(model, texts.tokens).expand(4, -1, -1)
    torch.testing.assert_close(features, expected)


def test_sets_beside_the_plain_tower_are_those_alone(model):
    views, prompts = torch.randn(2, 3, 3, 32, 32), DecoupledPrompts(lambda: coupled(model), 3)()
    learned, plain = encode_image_sets_twice(model, views, prompts)
    torch.testing.assert_close(learned, encode_image_sets(model, views, prompts))
    alone = encode_image(model, views.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(plain, alone)


def test_images_with_another_number_of_views_are_refused(model):
    prompts = DecoupledPrompts(lambda: coupled(model), 4)()
    with pytest.raises(ValueError, match="images must have 4 views, one per template, got 3"):
        encode_image_sets(model, torch.zeros(2, 3, 3, 32, 32), prompts)
    with pytest.raises(ValueError, match="images must have 4 views, one per template, got 3"):
        encode_image_sets_twice(model, torch.zeros(2, 3, 3, 32, 32), prompts)


def test_a_plain_prompt_set_is_no_family_of_sets(model, images):
    with pytest.raises(ValueError, match="one leading axis of M sets"):
        encode_image_sets(model, images, coupled(model)())


def test_conditional_texts_equal_a_loop_over_images(model):
    module = ConditionalPrompts(2, TEXT, EMBED)
    texts, z = class_tokens(NAMES, n_ctx=2), torch.randn(5, EMBED)
    prompts = module(z)
    features = encode_text_sets(model, texts, prompts)
    loop = [encode_classes(model, texts, PromptSet((ctx,))) for ctx in prompts.text[0]]
    torch.testing.assert_close(features, torch.stack(loop))


def test_conditional_prompts_can_be_decoupled_too():
    decoupled = DecoupledPrompts(lambda: ConditionalPrompts(2, TEXT, EMBED), 3)
    assert decoupled(torch.randn(5, EMBED)).text[0].shape == (3, 5, 2, TEXT)


def test_one_step_of_training_moves_prompts_and_nothing_else(model, images):
    decoupled = DecoupledPrompts(lambda: coupled(model), 2)
    texts = class_tokens(NAMES, n_ctx=2, prefix="a photo of a")
    before = [weight.clone() for weight in model.parameters()]
    optimizer = torch.optim.SGD(decoupled.parameters(), lr=0.1)
    start = {name: weight.clone() for name, weight in decoupled.named_parameters()}
    prompts = decoupled()
    z, t = encode_image_sets(model, images, prompts), encode_text_sets(model, texts, prompts)
    torch.einsum("bme,mke->bmk", z, t).sum().backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert all(not torch.equal(w, start[name]) for name, w in decoupled.named_parameters())


def test_decoupled_prompts_can_share_a_submodule_and_still_differ_in_their_words():
    words = torch.zeros(2, 8)
    shared = ["proj", "compound_prompt_projections"]
    prompts = DecoupledPrompts(lambda: CoupledPrompts(2, 2, 8, 6, init=words), 3, shared=shared)
    first, *others = prompts.templates
    for other in others:
        assert other.proj is first.proj
        assert other.compound_prompt_projections is first.compound_prompt_projections
        assert not torch.equal(other.ctx, first.ctx)
    alone = sum(p.numel() for p in first.parameters())
    words_and_deep = 2 * 2 * 8
    assert sum(p.numel() for p in prompts.parameters()) == alone + 2 * words_and_deep
