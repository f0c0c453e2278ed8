"""The image tower whose last block reads the class token alone, against the model's own forward."""

from __future__ import annotations

import pytest
import torch
from exact import assert_same, exact_clip, exact_images, low_precision_clip, random_prompts

from causalclip.clip.encode import encode_image
from causalclip.clip.encode_sets import encode_image_sets, encode_image_sets_twice
from causalclip.clip.injection import prompted
from causalclip.clip.prompt_set import PromptSet

SHAPE = {"vision_width": 128, "vision_layers": 3, "transformer_layers": 1}


@pytest.fixture(scope="module")
def model():
    return exact_clip(**SHAPE)


@pytest.fixture(scope="module")
def images():
    return exact_images()


def prompts(*sets, depth):
    return random_prompts(*sets, 2, depth=depth, width=128)


def own_forward(model, images, image):
    with prompted(model, image=image):
        return model.encode_image(images)


def twice(model, images, image):
    """Return features with prompts and without, (B, E) each, for one set."""
    sets = PromptSet(image=tuple(depth.unsqueeze(0) for depth in image))
    return [features[:, 0] for features in encode_image_sets_twice(model, images[:, None], sets)]


@pytest.mark.parametrize(("layers", "depth"), [(3, 0), (3, 1), (3, 2), (3, 3), (1, 1), (2, 2)])
@pytest.mark.parametrize("sets", [(), (4,)], ids=["the same for all", "one set an image"])
def test_values_and_gradients_are_the_models_own(images, sets, layers, depth):
    model = exact_clip(**{**SHAPE, "vision_layers": layers})
    image, pixels = prompts(*sets, depth=depth), images.clone().requires_grad_()
    ours, own = encode_image(model, pixels, image), own_forward(model, pixels, image)
    assert_same(ours, own, [pixels, *image])


def test_a_learning_tower_gets_the_gradients_of_its_own_forward(images):
    model = exact_clip(**SHAPE).requires_grad_(True)
    weights = list(model.visual.parameters())
    assert_same(encode_image(model, images), model.encode_image(images), weights)


@pytest.mark.parametrize(("depth", "tokens"), [(0, 17), (1, 19), (2, 19), (3, 17)])
def test_nothing_after_attention_is_computed_for_tokens_that_are_not_read(
    model, images, depth, tokens
):
    seen = []
    handles = [
        block.mlp.c_fc.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
        for block in model.visual.transformer.resblocks
    ]
    encode_image(model, images, prompts(depth=depth))
    for handle in handles:
        handle.remove()
    # the first block's prompts go on if no others take their place, the second's likewise
    first = 19 if depth == 1 else 17
    assert seen == [(4, first, 128), (4, tokens, 128), (4, 1, 128)]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("layers", [1, 3])
def test_prompted_and_plain_at_once_are_each_alone(images, layers, depth):
    model = exact_clip(**{**SHAPE, "vision_layers": layers})
    image = prompts(depth=min(depth, layers))
    learned, plain = twice(model, images, image)
    assert_same(learned, own_forward(model, images, image), image)
    assert_same(plain, model.encode_image(images))
    assert not plain.requires_grad


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
def test_one_view_for_all_sets_is_embedded_once(model, images, depth, hooked):
    image = prompts(2, depth=depth)
    expected = torch.stack(
        [own_forward(model, images, [own[m] for own in image]) for m in range(2)], dim=1
    )
    plain, seen = model.encode_image(images), []
    if hooked:
        handle = model.visual.transformer.resblocks[1].register_forward_hook(lambda *_: None)
    spy = model.visual.conv1.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    sets = PromptSet(image=tuple(image))
    alone = encode_image_sets(model, images, sets)
    learned, frozen = encode_image_sets_twice(model, images, sets)
    spy.remove()
    if hooked:
        handle.remove()
    assert seen == ([8, 4, 8] if hooked else [4, 4])
    assert_same(alone, expected)
    assert_same(learned, expected, image)
    assert_same(frozen, plain.unsqueeze(1).expand(-1, 2, -1))


@pytest.mark.parametrize("block", [0, 2])
def test_a_tower_with_a_hook_on_a_block_runs_through_its_own_forward(model, images, block):
    seen, image = [], prompts(depth=3)
    handle = model.visual.transformer.resblocks[block].register_forward_hook(
        lambda module, args, output: seen.append(len(output))
    )
    features, (learned, plain) = encode_image(model, images, image), twice(model, images, image)
    handle.remove()
    assert seen == [16 + 1 + 2, 16 + 1, 16 + 1 + 2]
    assert torch.equal(features, own_forward(model, images, image))
    assert_same(learned, features)
    assert torch.equal(plain, model.encode_image(images)) and not plain.requires_grad


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, "autocast"])
def test_low_precision_is_as_near_to_full_precision_as_the_models_own(images, dtype):
    autocast = dtype == "autocast"
    exact = low_precision_clip(torch.float32, **SHAPE)
    low = exact if autocast else low_precision_clip(dtype, **SHAPE)
    image, images = [p.detach().float() for p in prompts(depth=2)], images.float()
    true = own_forward(exact, images, image)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        ours, own = encode_image(low, images, image), own_forward(low, images, image)
    assert ours.dtype == own.dtype
    assert (ours - true).norm() <= 1.5 * (own - true).norm()
