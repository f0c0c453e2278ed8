"""Prompts inside an unmodified CLIP: identities, oracles, gradients, and that nothing stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from causalclip.clip.backbone import build_clip, tokenize
from causalclip.clip.encode import encode_image, encode_text, encode_texts
from causalclip.clip.injection import prompted
from causalclip.clip.texts import class_tokens

# Neither 512 nor 768: nothing may be hard-coded.
SHAPE = {"vision_width": 128, "transformer_width": 96, "transformer_heads": 3, "embed_dim": 40}
TEXTS = ["a photo of a zero.", "a photo of a double decker bus.", "a photo of a cat."]


def random_clip(**options):
    """A small frozen CLIP whose biases are not all zero, as they are at initialisation."""
    model = build_clip(**{**SHAPE, **options}).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def model():
    return random_clip()


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def tokens():
    return tokenize(TEXTS)


def prompts(width, *lead, depth=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (depth, *lead, 2, width)
    return list((0.3 * torch.randn(shape, generator=generator)).requires_grad_().unbind())


def count_hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def slow_text(model, tokens, text, positions):
    """MaPLe's text side written out: 77 tokens, block by block, sample by sample."""
    features = []
    for row, where, sets in zip(tokens, positions, zip(*text, strict=True), strict=True):
        x = model.token_embedding(row).index_put((where,), sets[0]) + model.positional_embedding
        x = x[:, None]  # L 1 D
        for i, block in enumerate(model.transformer.resblocks):
            if 0 < i < len(sets):
                x = x.index_put((where,), sets[i][:, None])
            x = block(x)
        features.append(model.ln_final(x[row.argmax(), 0]) @ model.text_projection)
    return torch.stack(features)


def slow_image(model, images, image):
    """MaPLe's image side written out, image by image."""
    visual, features = model.visual, []
    for pixels, sets in zip(images, zip(*image, strict=True), strict=True):
        patches = visual.conv1(pixels[None]).flatten(2).transpose(1, 2)[0]
        x = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        x = visual.ln_pre(torch.cat([x, sets[0]]))[:, None]
        n = len(x) - len(sets[0])
        for i, block in enumerate(visual.transformer.resblocks):
            x = block(torch.cat([x[:n], sets[i][:, None]]) if 0 < i < len(sets) else x)
        features.append(visual.ln_post(x[0, 0]) @ visual.proj)
    return torch.stack(features)


def test_truncated_text_equals_full_text_in_value(model, tokens):
    assert torch.equal(encode_text(model, tokens, truncate=False), model.encode_text(tokens))
    torch.testing.assert_close(encode_text(model, tokens), model.encode_text(tokens))


def test_truncated_text_equals_full_text_in_the_gradients_of_prompts_and_weights(tokens):
    model = build_clip(**SHAPE)
    text = prompts(96)

    def gradients(truncate):
        with prompted(model, text=text):
            loss = encode_text(model, tokens, truncate=truncate).square().sum()
        return torch.autograd.grad(loss, [*text, *model.transformer.parameters()])

    for short, full in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(short, full, rtol=1e-4, atol=1e-5 * full.abs().max().item())


def test_text_of_the_full_context_length_is_encoded_whole(model):
    tokens = tokenize("word " * 75)
    torch.testing.assert_close(encode_text(model, tokens), model.encode_text(tokens))


def test_a_words_own_embedding_as_prompt_changes_nothing(model, tokens):
    expected = model.encode_text(tokens)
    own = model.token_embedding(tokens[:, 1:6])
    with prompted(model, text=[own]):
        assert torch.equal(encode_text(model, tokens, truncate=False), expected)
        torch.testing.assert_close(encode_text(model, tokens), expected)
    shared = own[0, :4]  # "a photo of a", which all texts begin with
    with prompted(model, text=[shared], text_positions=torch.arange(1, 5)):
        assert torch.equal(encode_text(model, tokens, truncate=False), expected)
        torch.testing.assert_close(encode_text(model, tokens), expected)


def test_deep_prompts_that_repeat_the_activations_change_nothing(model, images):
    n, seen = 2, []
    first = 0.1 * torch.randn(4, n, 128)
    blocks = model.visual.transformer.resblocks
    handles = [
        block.register_forward_pre_hook(lambda module, args: seen.append(args[0][-n:]))
        for block in blocks
    ]
    with prompted(model, image=[first]):
        expected = encode_image(model, images)
    for handle in handles:
        handle.remove()
    deep = [activations.transpose(0, 1) for activations in seen[1:]]
    with prompted(model, image=[first, *deep]):
        assert torch.equal(encode_image(model, images), expected)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("truncate", [True, False])
def test_text_prompts_equal_the_slow_transcription(model, tokens, depth, truncate):
    text = prompts(96, 3, depth=depth)
    positions = torch.arange(1, 3).expand(3, -1)
    with prompted(model, text=text):
        features = encode_text(model, tokens, truncate=truncate)
    torch.testing.assert_close(features, slow_text(model, tokens, text, positions))


@pytest.mark.parametrize("positions", [[[1, 2], [4, 6], [3, 1]], [2, 4]], ids=["each", "shared"])
def test_text_prompts_stand_where_they_are_told(model, tokens, positions):
    text, positions = prompts(96, 3), torch.tensor(positions)
    with prompted(model, text=text, text_positions=positions):
        features = encode_text(model, tokens)
    expected = slow_text(model, tokens, text, positions.expand(3, -1))
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_image_prompts_equal_the_slow_transcription(model, images, depth):
    image = prompts(128, 4, depth=depth)
    with prompted(model, image=image):
        features = encode_image(model, images)
    torch.testing.assert_close(features, slow_image(model, images, image))


def test_gradients_of_prompts_equal_the_slow_transcription(model, tokens, images):
    text, image = prompts(96, 3), prompts(128, 4)
    positions = torch.arange(1, 3).expand(3, -1)
    with prompted(model, text=text, image=image):
        product = encode_image(model, images) @ encode_text(model, tokens).T
    slow = slow_image(model, images, image) @ slow_text(model, tokens, text, positions).T
    fast = torch.autograd.grad(product.square().sum(), [*text, *image])
    for ours, oracle in zip(
        fast, torch.autograd.grad(slow.square().sum(), [*text, *image]), strict=True
    ):
        torch.testing.assert_close(ours, oracle, rtol=1e-4, atol=1e-5 * oracle.abs().max().item())


def test_shared_prompts_are_per_sample_prompts_that_are_all_the_same(model, images, tokens):
    text, image = prompts(96), prompts(128)
    with prompted(model, text=text, image=image):
        shared = encode_text(model, tokens), encode_image(model, images)
    repeated = {
        "text": [p.expand(3, -1, -1) for p in text],
        "image": [p.expand(4, -1, -1) for p in image],
    }
    with prompted(model, **repeated):
        each = encode_text(model, tokens), encode_image(model, images)
    assert torch.equal(shared[0], each[0]) and torch.equal(shared[1], each[1])


def test_only_prompts_get_gradients(model, images, tokens):
    text, image = prompts(96), prompts(128)
    with prompted(model, text=text, image=image):
        (encode_image(model, images).sum() + encode_text(model, tokens).sum()).backward()
    assert all(weight.grad is None for weight in model.parameters())


def test_a_frozen_tower_without_prompts_keeps_no_graph(model, images):
    with prompted(model, text=prompts(96)):
        assert encode_image(model, images).grad_fn is None


def test_prompts_of_one_tower_leave_the_other_alone(model, images, tokens):
    image, text = encode_image(model, images), encode_text(model, tokens)
    with prompted(model, text=prompts(96)):
        assert torch.equal(encode_image(model, images), image)
    with prompted(model, image=prompts(128)):
        assert torch.equal(encode_text(model, tokens), text)
        assert torch.equal(encode_text(model, tokens, truncate=False), model.encode_text(tokens))


def test_the_model_is_left_as_it_was(model, images, tokens):
    state = {name: (value, value.clone()) for name, value in model.state_dict().items()}
    parameters = list(model.parameters())
    masks = [block.attn_mask for block in model.transformer.resblocks]
    with prompted(model, text=prompts(96), image=prompts(128)):
        encode_text(model, tokens), encode_image(model, images)
    assert count_hooks(model) == 0
    assert list(model.state_dict()) == list(state)
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(model.state_dict()[name], value) for name, (_, value) in state.items())
    assert all(
        torch.equal(block.attn_mask, mask) and mask.shape == (77, 77)
        for block, mask in zip(model.transformer.resblocks, masks, strict=True)
    )


def test_hooks_are_gone_after_an_exception(model, images, tokens):
    with pytest.raises(KeyError), prompted(model, text=prompts(96), image=prompts(128)):
        raise KeyError
    with (
        pytest.raises(ValueError, match="must match the batch of 3, got 5 sets"),
        prompted(model, text=prompts(96, 5)),
    ):
        encode_text(model, tokens)
    position = model.positional_embedding
    assert count_hooks(model) == 0 and len(position) == 77
    torch.testing.assert_close(encode_text(model, tokens), model.encode_text(tokens))


def test_an_exception_inside_the_truncated_tower_restores_the_positions(model, tokens):
    position = model.positional_embedding
    block = model.transformer.resblocks[1]

    def fail(module, args):
        raise KeyError("inside")

    handle = block.register_forward_pre_hook(fail)
    with pytest.raises(KeyError, match="inside"):
        encode_text(model, tokens)
    handle.remove()
    assert model.positional_embedding is position and count_hooks(model) == 0


def test_prompting_a_prompted_model_is_refused(model, images):
    with prompted(model, text=prompts(96)):
        with (
            pytest.raises(RuntimeError, match="prompted already"),
            prompted(model, image=prompts(128)),
        ):
            pass
        with prompted(random_clip(), text=prompts(96)):  # another model is another matter
            pass
    with prompted(model, image=prompts(128)):
        pass


def test_prompts_by_argument_do_not_add_to_prompts_by_context(model, images):
    texts = class_tokens(["cat"], n_ctx=2)
    with prompted(model, image=prompts(128, depth=1)):
        expected = encode_image(model, images)
        for use in (
            lambda: encode_image(model, images, prompts(128, depth=1)),
            lambda: encode_texts(model, texts, prompts(96, 1, depth=1)),
        ):
            with pytest.raises(RuntimeError, match="prompted already"):
                use()
    torch.testing.assert_close(encode_image(model, images, prompts(128, depth=1)), expected)


def test_without_prompts_nothing_is_hooked(model):
    with prompted(model), prompted(model):
        assert count_hooks(model) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": prompts(96, depth=4)}, "text prompt depth must be at most 3, .* got 4"),
        ({"image": prompts(128, depth=4)}, "image prompt depth must be at most 3, .* got 4"),
        ({"text": prompts(128)}, r"text\[0\] must have shape \(n, 96\)"),
        ({"image": prompts(96)}, r"image\[0\] must have shape \(n, 128\)"),
        ({"text": [torch.zeros(96)]}, r"got \(96,\)"),
        ({"image": [torch.zeros(0, 128)]}, "n >= 1"),
        ({"text": [torch.zeros(1, 96), torch.zeros(2, 96)]}, "same number of tokens"),
        (
            {"text": prompts(96), "text_positions": torch.arange(3)},
            "text_positions must name 2 positions, one per prompt token, got 3",
        ),
    ],
)
def test_prompts_that_do_not_fit_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message), prompted(model, **options):
        pass
    assert count_hooks(model) == 0


def test_a_resnet_takes_text_prompts_only(images, tokens):
    resnet = random_clip(vision_layers=(1, 1, 1, 1), vision_width=8)
    text = prompts(96, 3)
    with prompted(resnet, text=text):
        assert torch.equal(encode_image(resnet, images), resnet.encode_image(images))
        features = encode_text(resnet, tokens)
    positions = torch.arange(1, 3).expand(3, -1)
    torch.testing.assert_close(features, slow_text(resnet, tokens, text, positions))
    with (
        pytest.raises(ValueError, match="image prompts need a ViT backbone, got a ResNet"),
        prompted(resnet, image=prompts(128)),
    ):
        pass


def test_data_parallel_is_refused_with_what_to_use_instead(model, tokens):
    wrapped = nn.DataParallel(model)
    for use in (lambda: encode_text(wrapped, tokens), prompted(wrapped).__enter__):
        with pytest.raises(ValueError, match="nn.DataParallel: run one process per GPU"):
            use()
    replica = model._replicate_for_data_parallel()
    replica._is_replica = True
    with pytest.raises(ValueError, match="one process per GPU"):
        encode_text(replica, tokens)


def test_images_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match=r"\(B, 3, 32, 32\) for this backbone, got .*64, 64\)"):
        encode_image(model, torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_prompts_stay_in_full_precision_around_a_low_precision_model(dtype, images, tokens):
    model, low = random_clip(), random_clip()
    for name, weight in low.named_parameters():
        if "ln_" not in name:  # CLIP's LayerNorm computes in fp32
            weight.data = weight.data.to(dtype)
    text, image = prompts(96), prompts(128)
    features = []
    for clip in (model, low):
        with prompted(clip, text=text, image=image):
            features.append((encode_text(clip, tokens), encode_image(clip, images)))
    for full, half in zip(*features, strict=True):
        assert half.dtype == dtype
        assert torch.cosine_similarity(full, half.float()).min() > 0.99
    gradients = torch.autograd.grad(features[1][0].float().square().sum(), text)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


def test_prompts_work_under_autocast(model, images, tokens):
    text, image = prompts(96), prompts(128)
    with prompted(model, text=text, image=image):
        full = encode_text(model, tokens), encode_image(model, images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = encode_text(model, tokens), encode_image(model, images)
    for one, other in zip(full, mixed, strict=True):
        assert torch.cosine_similarity(one, other.float()).min() > 0.99
