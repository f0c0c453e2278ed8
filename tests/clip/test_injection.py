"""Prompts inside an unmodified CLIP: values, gradients, and no change to the model after it."""

from __future__ import annotations

import pytest
import torch
from exact import assert_same, exact_clip, exact_images, hooks_of, random_prompts, slow_texts
from exact import slow_images as slow
from torch import nn

from causalclip.clip.encode import encode_image, encode_image_tokens, encode_text, encode_texts
from causalclip.clip.injection import prompted
from causalclip.clip.interface import tokenize
from causalclip.clip.prompt_set import Additions
from causalclip.clip.texts import class_tokens

TEXTS = ["a photo of a zero.", "a photo of a double decker bus.", "a photo of a cat."]
TEXT, VISION = 24, 128  # neither 512 nor 768: nothing may be hard-coded
SHAPE = {"vision_width": VISION, "vision_layers": 3}


@pytest.fixture(scope="module")
def model():
    return exact_clip(**SHAPE)


@pytest.fixture(scope="module")
def images():
    return exact_images()


@pytest.fixture(scope="module")
def tokens():
    return tokenize(TEXTS)


def text_prompts(*lead, depth=3):
    return random_prompts(*lead, 2, depth=depth, width=TEXT)


def image_prompts(*lead, depth=3):
    return random_prompts(*lead, 2, depth=depth, width=VISION)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("truncate", [True, False])
@pytest.mark.parametrize("positions", [None, [2, 4], [[1, 2], [4, 6], [3, 1]]])
def test_text_prompts_equal_the_slow_transcription(model, tokens, depth, truncate, positions):
    text = text_prompts(3, depth=depth)
    given = None if positions is None else torch.tensor(positions)
    with prompted(model, text=text, text_positions=given):
        features = encode_text(model, tokens, truncate=truncate)
    where = torch.arange(1, 3) if given is None else given
    assert_same(features, slow_texts(model, tokens, text, where.expand(3, -1)), text)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_image_prompts_equal_the_slow_transcription(model, images, depth):
    image = image_prompts(4, depth=depth)
    with prompted(model, image=image):
        features = encode_image(model, images)
    assert_same(features, slow(model, images, image)[0], image)


def test_prompts_of_one_tower_leave_the_other_alone_and_the_model_without_gradients(
    model, images, tokens
):
    image, text = encode_image(model, images), encode_text(model, tokens)
    with prompted(model, text=text_prompts()):
        assert torch.equal(encode_image(model, images), image)
        assert encode_image(model, images).grad_fn is None
        encode_text(model, tokens).sum().backward()
    with prompted(model, image=image_prompts()):
        assert torch.equal(encode_text(model, tokens), text)
        assert torch.equal(encode_text(model, tokens, truncate=False), model.encode_text(tokens))
        encode_image(model, images).sum().backward()
    assert all(weight.grad is None for weight in model.parameters())


def test_the_model_is_left_as_it_was_after_an_exception_inside_too(model, images, tokens):
    expected, parameters = encode_text(model, tokens), list(model.parameters())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    masks = [block.attn_mask for block in model.transformer.resblocks]

    def fail(module, args):
        raise KeyError("inside")

    handle = model.transformer.resblocks[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyError), prompted(model, text=text_prompts(), image=image_prompts()):
        encode_image(model, images)
        encode_text(model, tokens)
    handle.remove()
    refused = pytest.raises(ValueError, match="must match the batch of 3, got 5 sets")
    with refused, prompted(model, text=text_prompts(5)):
        encode_text(model, tokens)
    assert hooks_of(model) == 0
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    for block, mask in zip(model.transformer.resblocks, masks, strict=True):
        assert torch.equal(block.attn_mask, mask) and mask.shape == (77, 77)
    assert torch.equal(encode_text(model, tokens), expected)


def test_prompting_a_prompted_model_is_refused(model, images):
    texts, prompts = class_tokens(["cat"], n_ctx=2), image_prompts(depth=1)
    with prompted(model, image=prompts):
        expected = encode_image(model, images)
        for use in (
            lambda: prompted(model, text=text_prompts()).__enter__(),
            lambda: encode_image(model, images, prompts),
            lambda: encode_texts(model, texts, text_prompts(1, depth=1)),
            lambda: encode_texts(model, texts, (), Additions({0: torch.zeros(1, TEXT)})),
            lambda: encode_image_tokens(model, images, Additions({0: torch.zeros(1, VISION)})),
        ):
            with pytest.raises(RuntimeError, match="prompted already"):
                use()
        with prompted(exact_clip(**SHAPE), text=text_prompts()):  # another model
            pass
    assert_same(encode_image(model, images, prompts), expected)
    with prompted(model), prompted(model):  # without prompts nothing is hooked
        assert hooks_of(model) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": text_prompts(depth=4)}, "text prompt depth must be at most 3, .* got 4"),
        ({"image": image_prompts(depth=4)}, "image prompt depth must be at most 3, .* got 4"),
        ({"text": image_prompts()}, r"text\[0\] must have shape \(n, 24\)"),
        ({"image": text_prompts()}, r"image\[0\] must have shape \(n, 128\)"),
        ({"text": [torch.zeros(TEXT)]}, r"got \(24,\)"),
        ({"image": [torch.zeros(0, VISION)]}, "n >= 1"),
        ({"text": [torch.zeros(1, TEXT), torch.zeros(2, TEXT)]}, "same number of tokens"),
        ({"text": [None, *text_prompts(depth=1)]}, r"text\[0\] must be prompts"),
        (
            {"text": text_prompts(), "text_positions": torch.arange(3)},
            "text_positions must name 2 positions, one per prompt token, got 3",
        ),
    ],
)
def test_prompts_that_do_not_fit_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message), prompted(model, **options):
        pass
    assert hooks_of(model) == 0


def test_a_resnet_takes_text_prompts_only(images, tokens):
    resnet = exact_clip(vision_layers=(1, 1, 1, 1), vision_width=8, embed_dim=32)
    text, where = text_prompts(3), torch.arange(1, 3).expand(3, -1)
    with prompted(resnet, text=text):
        assert torch.equal(encode_image(resnet, images), resnet.encode_image(images))
        features = encode_text(resnet, tokens)
    assert_same(features, slow_texts(resnet, tokens, text, where))
    for use in (
        lambda: prompted(resnet, image=image_prompts()).__enter__(),
        lambda: encode_image(resnet, images, image_prompts()),
        lambda: encode_image(resnet, images, (), Additions({0: torch.zeros(1, VISION)})),
    ):
        with pytest.raises(ValueError, match="image prompts need a ViT backbone, got a ResNet"):
            use()


def test_data_parallel_is_refused_with_what_to_use_instead(model, tokens):
    wrapped, replica = nn.DataParallel(model), model._replicate_for_data_parallel()
    replica._is_replica = True
    for use in (
        lambda: encode_text(wrapped, tokens),
        prompted(wrapped).__enter__,
        lambda: encode_text(replica, tokens),
    ):
        with pytest.raises(ValueError, match="nn.DataParallel: run one process per GPU"):
            use()


def test_images_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match=r"\(B, 3, 32, 32\) for this backbone, got .*64, 64\)"):
        encode_image(model, torch.zeros(2, 3, 64, 64))
