"""Tokens that enter midway and adapters: transcriptions, both paths, and that nothing stays."""

from __future__ import annotations

import pytest
import torch
from exact import exact_clip, exact_images, random_prompts

from causalclip.clip.additions import Additions
from causalclip.clip.backbone import build_clip, tokenize
from causalclip.clip.encode import encode_image, encode_image_tokens, encode_text, encode_texts
from causalclip.clip.injection import prompted
from causalclip.clip.texts import class_tokens, template_tokens

NAMES = ["zero", "double decker bus", "cat"]
TEXTS = template_tokens(NAMES, "a photo of a {}.")
SHAPE = {"vision_layers": 3, "vision_width": 128, "transformer_layers": 3}
TEXT, VISION = 24, 128  # widths


@pytest.fixture(scope="module")
def model():
    return exact_clip(**SHAPE)


@pytest.fixture(scope="module")
def images():
    return exact_images()


def additions(width, *sets, blocks=(1, 2), adapters=(0, 2)) -> tuple[Additions, list]:
    """Random ones for the blocks named, and what learns in them."""
    tokens = random_prompts(*sets, 2, depth=max(len(blocks), 1), width=width)
    learned = random_prompts(width, depth=max(len(adapters), 1), width=width, seed=1)
    steps = zip(adapters, learned, strict=False)
    made = Additions(
        dict(zip(blocks, tokens, strict=False)),
        {i: lambda x, w=w: torch.tanh(x @ w) for i, w in steps},
    )
    return made, [*tokens[: len(blocks)], *learned[: len(adapters)]]


def blocks_written_out(blocks, x, added: Additions, causal: bool):
    """One sample's tokens (L, 1, D) through the blocks, with each addition by hand."""
    for i, block in enumerate(blocks):
        if i in added.tokens:
            rest = x[1:] if i == min(added.tokens) else x[1 + added.n_tokens :]
            x = torch.cat([x[:1], added.tokens[i][:, None], rest])
        y = block.ln_1(x)
        mask = torch.full((len(x), len(x)), float("-inf")).triu(1).to(x) if causal else None
        out = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        out = out + block.mlp(block.ln_2(out))
        x = out + added.adapters[i](y) if i in added.adapters else out
    return x


def slow_text(model, tokens, added):
    features = []
    for row in tokens:
        x = (model.token_embedding(row) + model.positional_embedding)[:, None]
        x = blocks_written_out(model.transformer.resblocks, x, added, causal=True)
        end = row.argmax() + added.n_tokens
        features.append(model.ln_final(x[end, 0]) @ model.text_projection)
    return torch.stack(features)


def slow_image(model, images, added):
    """Features, and the tokens that entered."""
    visual, features, left = model.visual, [], []
    for pixels in images:
        patches = visual.conv1(pixels[None]).flatten(2).transpose(1, 2)[0]
        x = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        x = visual.ln_pre(x)[:, None]
        x = visual.ln_post(blocks_written_out(visual.transformer.resblocks, x, added, causal=False))
        features.append(x[0, 0] @ visual.proj)
        left.append(x[1 : 1 + added.n_tokens, 0])
    return torch.stack(features), torch.stack(left)


def assert_same_with_gradients(ours, oracle, learned):
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-12)
    pairs = [torch.autograd.grad(f.square().sum(), learned) for f in (ours, oracle)]
    for one, other in zip(*pairs, strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


WHERE = [((1, 2), (0, 2)), ((0, 2), ()), ((2,), (1,)), ((), (0, 1, 2))]


@pytest.mark.parametrize("path", ["ours", "prompted", "whole texts"])
@pytest.mark.parametrize(("blocks", "adapters"), WHERE)
def test_texts_equal_the_transcription(model, blocks, adapters, path):
    added, learned = additions(TEXT, blocks=blocks, adapters=adapters)
    if path == "ours":
        features = encode_texts(model, TEXTS, (), added)[0]
    else:
        with prompted(model, text_additions=added):
            features = encode_text(model, TEXTS.tokens, truncate=path == "prompted")
    assert_same_with_gradients(features, slow_text(model, TEXTS.tokens, added), learned)


def in_our_forward(model, images, added):
    features, left = encode_image_tokens(model, images, added)
    assert torch.equal(encode_image(model, images, (), added), features)
    return features, left


def in_the_models_own(model, images, added):
    """A hook that does nothing keeps our forward away."""
    handle = model.visual.transformer.resblocks[1].register_forward_hook(lambda *_: None)
    features, left = encode_image_tokens(model, images, added)
    handle.remove()
    with prompted(model, image_additions=added):
        assert torch.equal(encode_image(model, images), features)
    return features, left


@pytest.mark.parametrize("encode", [in_our_forward, in_the_models_own])
@pytest.mark.parametrize(("blocks", "adapters"), WHERE)
def test_images_equal_the_transcription(model, images, blocks, adapters, encode):
    added, learned = additions(VISION, blocks=blocks, adapters=adapters)
    ours, oracle = encode(model, images, added), slow_image(model, images, added)
    assert ours[1].shape == (4, added.n_tokens, VISION)
    one, other = (torch.cat([part.flatten() for part in both]) for both in (ours, oracle))
    assert_same_with_gradients(one, other, learned)


def test_each_sample_has_its_own_tokens_and_no_others(model, images):
    of_images, _ = additions(VISION, 4, adapters=())
    of_texts, _ = additions(TEXT, 3, adapters=())
    with prompted(model, text_additions=of_texts, image_additions=of_images):
        hooked = encode_text(model, TEXTS.tokens), encode_image(model, images)
    ours = encode_texts(model, TEXTS, (), of_texts)[0], encode_image(model, images, (), of_images)
    for features, other in zip(ours, hooked, strict=True):
        torch.testing.assert_close(features, other, rtol=0, atol=1e-12)
    for i in range(3):
        own = Additions({block: tokens[i] for block, tokens in of_texts.tokens.items()})
        alone = slow_text(model, TEXTS.tokens[i : i + 1], own)
        torch.testing.assert_close(ours[0][i : i + 1], alone, rtol=0, atol=1e-12)
        own = Additions({block: tokens[i] for block, tokens in of_images.tokens.items()})
        alone, _ = slow_image(model, images[i : i + 1], own)
        torch.testing.assert_close(ours[1][i : i + 1], alone, rtol=0, atol=1e-12)


def test_adapters_go_with_prompts(model):
    texts, prompts = class_tokens(NAMES, n_ctx=2), random_prompts(2, depth=2, width=TEXT)
    added, learned = additions(TEXT, blocks=())
    ours = encode_texts(model, texts, [p.unsqueeze(0) for p in prompts], added)[0]
    with prompted(model, text=prompts, text_additions=added):
        own = encode_text(model, texts.tokens)
    assert_same_with_gradients(ours, own, [*prompts, *learned])
    assert not torch.allclose(ours, encode_texts(model, texts, [p[None] for p in prompts])[0])


def hooks_of(model) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def test_nothing_stays_after_an_exception_and_other_tower_is_left_alone(model, images):
    image, _ = additions(VISION)
    text, _ = additions(TEXT)
    plain = encode_image(model, images), encode_text(model, TEXTS.tokens)
    with pytest.raises(KeyError), prompted(model, text_additions=text, image_additions=image):
        raise KeyError
    with prompted(model, text_additions=text):
        assert torch.equal(encode_image(model, images), plain[0])
    wrong, _ = additions(VISION, 5)
    for use in (encode_image, encode_image_tokens):
        with pytest.raises(ValueError, match="must match the batch of 4, got 5 sets"):
            use(model, images, additions=wrong)
    assert hooks_of(model) == 0
    assert torch.equal(encode_text(model, TEXTS.tokens), plain[1])
    assert all(block.attn_mask.shape == (77, 77) for block in model.transformer.resblocks)


def test_a_model_is_not_given_twice(model, images):
    image, text = additions(VISION)[0], additions(TEXT)[0]
    with prompted(model, image_additions=image):
        for use in (
            lambda: prompted(model, text_additions=text).__enter__(),
            lambda: encode_image_tokens(model, images, image),
            lambda: encode_texts(model, TEXTS, (), text),
        ):
            with pytest.raises(RuntimeError, match="prompted already"):
                use()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (2, 3)}, "must be to blocks 0 to 2 of the image tower, got 3"),
        ({"adapters": (-1,)}, "must be to blocks 0 to 2 of the image tower, got -1"),
        ({"width": 64}, r"image tokens of block 1 must have shape \(n, 128\).* got \(2, 64\)"),
    ],
)
def test_what_does_not_fit_is_refused(model, images, options, message):
    added, _ = additions(**{"width": VISION, **options})
    for use in (
        lambda: encode_image(model, images, (), added),
        lambda: prompted(model, image_additions=added).__enter__(),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    assert hooks_of(model) == 0


def test_tokens_that_enter_midway_do_not_go_with_prompts_or_a_resnet(model, images):
    added, prompts = additions(VISION)[0], random_prompts(2, depth=1, width=VISION)
    with pytest.raises(ValueError, match="image prompts and tokens that enter midway do not go"):
        encode_image(model, images, prompts, added)
    uneven = Additions({0: torch.zeros(1, VISION), 1: torch.zeros(2, VISION)})
    with pytest.raises(ValueError, match="image tokens of all blocks must be of the same number"):
        encode_image(model, images, (), uneven)
    resnet = build_clip(vision_layers=(1, 1, 1, 1), vision_width=8, embed_dim=32)
    with pytest.raises(ValueError, match="need a ViT backbone, got a ResNet"):
        encode_image(resnet, images, (), added)


def test_texts_of_a_template_read_as_it_says():
    texts = template_tokens(["hot_air_balloon"], "a photo of a {}, a type of pet.")
    expected = tokenize(["a photo of a hot air balloon, a type of pet."])
    assert torch.equal(texts.tokens, expected) and texts.positions.shape == (1, 0)
