"""The image tower whose last block reads the class token alone, against the model's own forward."""

from __future__ import annotations

import pytest
import torch
from exact import exact_clip, exact_images, random_prompts

from causalclip.clip.backbone import build_clip
from causalclip.clip.encode import encode_image, encode_image_twice
from causalclip.clip.injection import prompted

SHAPE = {"vision_width": 128, "vision_layers": 3, "transformer_layers": 1}


@pytest.fixture(scope="module")
def model():
    return exact_clip(**SHAPE)


@pytest.fixture(scope="module")
def images():
    return exact_images()


def own_forward(model, images, image):
    with prompted(model, image=image):
        return model.encode_image(images)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("sets", [(), (4,)], ids=["the same for all", "one set an image"])
def test_values_and_gradients_are_the_models_own(model, images, sets, depth):
    image = random_prompts(*sets, 2, depth=depth, width=128)
    pixels = images.clone().requires_grad_()
    ours, own = encode_image(model, pixels, image), own_forward(model, pixels, image)
    torch.testing.assert_close(ours, own, rtol=0, atol=1e-12)
    pairs = [torch.autograd.grad(f.square().sum(), [pixels, *image]) for f in (ours, own)]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_tower_of_any_depth_is_the_models_own(images, layers):
    model = exact_clip(vision_layers=layers)
    image = random_prompts(3, depth=layers, width=64)
    ours, own = encode_image(model, images, image), own_forward(model, images, image)
    torch.testing.assert_close(ours, own, rtol=0, atol=1e-12)


def test_a_learning_tower_gets_the_gradients_of_its_own_forward(images):
    model = exact_clip(**SHAPE).requires_grad_(True)
    weights = list(model.visual.parameters())
    ours = torch.autograd.grad(encode_image(model, images).square().sum(), weights)
    own = torch.autograd.grad(model.encode_image(images).square().sum(), weights)
    for one, other in zip(ours, own, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("depth", "tokens"), [(0, 17), (1, 19), (2, 19), (3, 17)])
def test_nothing_behind_attention_is_computed_for_tokens_that_are_not_read(
    model, images, depth, tokens
):
    seen = []
    handles = [
        block.mlp.c_fc.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
        for block in model.visual.transformer.resblocks
    ]
    encode_image(model, images, random_prompts(2, depth=depth, width=128))
    for handle in handles:
        handle.remove()
    # the first block's prompts go on if no others take their place, the second's likewise
    first = 19 if depth == 1 else 17
    assert seen == [(4, first, 128), (4, tokens, 128), (4, 1, 128)]


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("layers", [1, 3])
def test_prompted_and_plain_at_once_are_each_alone(images, layers, depth):
    model = exact_clip(**{**SHAPE, "vision_layers": layers})
    image = random_prompts(4, 2, depth=min(depth, layers), width=128)
    both = encode_image_twice(model, images, image)
    for ours, alone in zip(both, (image, ()), strict=True):
        torch.testing.assert_close(ours, encode_image(model, images, alone), rtol=0, atol=1e-12)
    assert not both[1].requires_grad
    if image:
        pairs = [
            torch.autograd.grad(features.square().sum(), image)
            for features in (both[0], own_forward(model, images, image))
        ]
        for one, other in zip(*pairs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_what_stands_in_front_of_the_prompts_is_computed_once_for_both(model, images):
    seen = []
    handle = model.visual.ln_pre.register_forward_pre_hook(lambda module, args: seen.append(args))
    encode_image_twice(model, images, random_prompts(2, depth=3, width=128))
    handle.remove()
    assert [len(args[0][0]) for args in seen] == [17, 2]


def test_a_tower_with_something_on_a_block_gives_both_by_its_own_forward(model, images):
    image = random_prompts(2, depth=3, width=128)
    handle = model.visual.transformer.resblocks[0].register_forward_hook(lambda *_: None)
    learned, plain = encode_image_twice(model, images, image)
    handle.remove()
    assert torch.equal(learned, own_forward(model, images, image))
    assert torch.equal(plain, model.encode_image(images))
    assert not plain.requires_grad


@pytest.mark.parametrize("block", [0, 2])
def test_a_tower_with_something_on_a_block_runs_through_its_own_forward(model, images, block):
    seen = []
    handle = model.visual.transformer.resblocks[block].register_forward_hook(
        lambda module, args, output: seen.append(len(output))
    )
    image = random_prompts(2, depth=3, width=128)
    features = encode_image(model, images, image)
    handle.remove()
    assert seen == [16 + 1 + 2]
    assert torch.equal(features, own_forward(model, images, image))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_low_precision_is_as_near_to_full_precision_as_the_models_own(images, dtype):
    low, exact = (build_clip(**SHAPE).requires_grad_(False) for _ in range(2))
    for name, weight in low.named_parameters():
        if "ln_" not in name:  # CLIP's LayerNorm computes in fp32
            weight.data = weight.data.to(dtype)
    image = [p.detach().float() for p in random_prompts(2, depth=2, width=128)]
    ours, own = encode_image(low, images, image), own_forward(low, images, image)
    true = own_forward(exact, images.float(), image)
    assert ours.dtype == dtype
    assert (ours - true).norm() <= 1.5 * (own - true).norm()


def test_autocast_is_as_near_to_full_precision_as_the_models_own(images):
    model = build_clip(**SHAPE).requires_grad_(False)
    image = [p.detach().float() for p in random_prompts(2, depth=2, width=128)]
    true = own_forward(model, images.float(), image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = encode_image(model, images.float(), image)
        own = own_forward(model, images.float(), image)
    assert ours.dtype == own.dtype
    assert (ours - true).norm() <= 1.5 * (own - true).norm()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (random_prompts(2, depth=4, width=128), "image prompt depth must be at most 3"),
        (random_prompts(3, 2, depth=1, width=128), "must match the batch of 4, got 3 sets"),
        (random_prompts(2, depth=1, width=64), r"image\[0\] must have shape \(n, 128\)"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(model, images, image, message):
    with pytest.raises(ValueError, match=message):
        encode_image(model, images, image)


def test_a_resnet_takes_no_image_prompts(images):
    resnet = build_clip(vision_layers=(1, 1, 1, 1), vision_width=8, embed_dim=32)
    with pytest.raises(ValueError, match="image prompts need a ViT backbone, got a ResNet"):
        encode_image(resnet, images, random_prompts(2, depth=1, width=128))
    images = images.float()
    assert torch.equal(encode_image(resnet, images), resnet.encode_image(images))
