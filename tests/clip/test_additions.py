"""Tokens added in later blocks, and adapters: values, both code paths, and no change after it."""

from __future__ import annotations

import pytest
import torch
from exact import (
    assert_same,
    exact_clip,
    exact_images,
    hooks_of,
    random_prompts,
    slow_images,
    slow_texts,
)

from causalclip.clip.encode import (
    encode_image,
    encode_image_tokens,
    encode_image_tokens_twice,
    encode_lower_texts,
    encode_text,
    encode_texts,
)
from causalclip.clip.injection import prompted
from causalclip.clip.prompt_set import NO_ADDITIONS, Additions, PromptSet
from causalclip.clip.texts import template_tokens

NAMES = ["zero", "double decker bus", "cat"]
TEXTS = template_tokens(NAMES, "a photo of a {}.")
TEXT, VISION = 24, 128  # widths


@pytest.fixture(scope="module")
def model():
    return exact_clip(vision_layers=3, vision_width=VISION)


@pytest.fixture(scope="module")
def images():
    return exact_images()


def additions(
    width, *sets, blocks=(1, 2), adapters=(0, 2), new_share=1.0
) -> tuple[Additions, list]:
    """Random ones for the blocks named, and what learns in them."""
    tokens = random_prompts(*sets, 2, depth=max(len(blocks), 1), width=width)
    learned = random_prompts(width, depth=max(len(adapters), 1), width=width, seed=1)
    steps = zip(adapters, learned, strict=False)
    made = Additions(
        dict(zip(blocks, tokens, strict=False)),
        {i: lambda x, w=w: torch.tanh(x @ w) for i, w in steps},
        new_share,
    )
    return made, [*tokens[: len(blocks)], *learned[: len(adapters)]]


WHERE = [
    ((1, 2), (0, 2), False, 1.0),
    ((0, 2), (), False, 1.0),
    ((2,), (1,), False, 1.0),
    ((), (0, 1, 2), False, 1.0),
    ((1, 2), (0, 2), True, 1.0),
    ((0, 2), (), False, 0.3),
    ((1, 2), (0, 2), True, 0.6),
]


@pytest.mark.parametrize("path", ["ours", "prompted", "whole texts"])
@pytest.mark.parametrize(("blocks", "adapters", "per_text", "share"), WHERE)
def test_texts_equal_the_transcription(model, blocks, adapters, per_text, share, path):
    sets = (len(NAMES),) if per_text else ()
    added, learned = additions(TEXT, *sets, blocks=blocks, adapters=adapters, new_share=share)
    if path == "ours":
        features = encode_texts(model, TEXTS, (), added)[0]
    else:
        with prompted(model, text_additions=added):
            features = encode_text(model, TEXTS.tokens, truncate=path == "prompted")
    assert_same(features, slow_texts(model, TEXTS.tokens, added=added), learned)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize(("blocks", "adapters", "per_image", "share"), WHERE)
def test_images_equal_the_transcription(model, images, blocks, adapters, per_image, share, hooked):
    sets = (len(images),) if per_image else ()
    added, learned = additions(VISION, *sets, blocks=blocks, adapters=adapters, new_share=share)
    if hooked:  # a hook that does nothing keeps our forward away
        handle = model.visual.transformer.resblocks[1].register_forward_hook(lambda *_: None)
    ours = encode_image_tokens(model, images, added)
    assert torch.equal(encode_image(model, images, (), added), ours[0])
    if hooked:
        handle.remove()
    with prompted(model, image_additions=added):
        assert_same(encode_image(model, images), ours[0])
    assert ours[1].shape == (4, added.n_tokens, VISION)
    both = (ours, slow_images(model, images, added=added))
    assert_same(*(torch.cat([part.flatten() for part in parts]) for parts in both), learned)


def calls_of(block, run):
    """The result of `run`, and how often it calls a block's MLP."""
    calls = []
    handle = block.mlp.c_fc.register_forward_hook(lambda *_: calls.append(1))
    result = run()
    handle.remove()
    return result, len(calls)


@pytest.mark.parametrize(("blocks", "adapters"), [((1, 2), ()), ((2,), (1,)), ((), (2,))])
def test_texts_below_the_first_addition_are_given(model, blocks, adapters):
    added, learned = additions(TEXT, blocks=blocks, adapters=adapters)
    lower = encode_lower_texts(model, TEXTS, PromptSet(text_additions=added))
    assert lower is not None and not lower.x.requires_grad
    below, first = (model.transformer.resblocks[i] for i in (added.start - 1, added.start))
    features, calls = calls_of(below, lambda: encode_texts(model, TEXTS, (), added, lower)[0])
    assert calls == 0
    assert_same(features, slow_texts(model, TEXTS.tokens, added=added), learned)
    deeper = lower._replace(block=added.start + 1)  # of other additions: they are not used
    assert calls_of(first, lambda: encode_texts(model, TEXTS, (), added, deeper))[1] == 1


@pytest.mark.parametrize("kind", ["prompts", "a set a text", "weights", "nothing", "hooked"])
def test_texts_that_learn_in_all_blocks_or_run_elsewhere_have_no_lower_part(model, kind):
    added = additions(TEXT, *((len(NAMES),) if kind == "a set a text" else ()))[0]
    given = {"text_additions": NO_ADDITIONS if kind == "nothing" else added}
    if kind == "prompts":
        given = {"text": tuple(random_prompts(2, depth=1, width=TEXT))}
    if kind == "weights":
        given["weights"] = {"ln_final.weight": torch.zeros(TEXT, dtype=torch.float64)}
    handle = None
    if kind == "hooked":
        handle = model.transformer.resblocks[1].register_forward_hook(lambda *_: None)
    lower = encode_lower_texts(model, TEXTS, PromptSet(**given))
    if handle:
        handle.remove()
    assert lower is None


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize(("blocks", "adapters"), [((1, 2), ()), ((0, 1, 2), ()), ((2,), (1,))])
def test_images_with_tokens_and_without_share_what_is_below(
    model, images, blocks, adapters, hooked
):
    added, learned = additions(VISION, blocks=blocks, adapters=adapters)
    expected = *encode_image_tokens(model, images, added), encode_image(model, images)
    block = model.visual.transformer.resblocks[0]
    handle = block.register_forward_hook(lambda *_: None) if hooked else None
    found, calls = calls_of(block, lambda: encode_image_tokens_twice(model, images, added))
    if handle:
        handle.remove()
    assert calls == (2 if hooked or 0 in blocks else 1)
    assert not found[2].requires_grad
    assert_same(found[2], expected[2])
    flat = [torch.cat([part.flatten() for part in parts[:2]]) for parts in (found, expected)]
    assert_same(*flat, learned)


def test_nothing_stays_after_an_exception_and_the_other_tower_is_left_alone(model, images):
    text, wrong = additions(TEXT)[0], additions(VISION, 5)[0]
    plain = encode_image(model, images), encode_text(model, TEXTS.tokens)
    with pytest.raises(KeyError), prompted(model, text_additions=text):
        assert torch.equal(encode_image(model, images), plain[0])
        raise KeyError
    for use in (encode_image, encode_image_tokens):
        with pytest.raises(ValueError, match="must match the batch of 4, got 5 sets"):
            use(model, images, additions=wrong)
    assert hooks_of(model) == 0
    assert torch.equal(encode_text(model, TEXTS.tokens), plain[1])
    assert all(block.attn_mask.shape == (77, 77) for block in model.transformer.resblocks)


UNEVEN = Additions({0: torch.zeros(1, VISION), 1: torch.zeros(2, VISION)})


@pytest.mark.parametrize(
    ("added", "prompts", "message"),
    [
        (additions(VISION, blocks=(2, 3))[0], (), "to blocks 0 to 2 of the image tower, got 3"),
        (additions(VISION, adapters=(-1,))[0], (), "to blocks 0 to 2 of the image tower, got -1"),
        (additions(64)[0], (), r"of block 1 must have shape \(n, 128\).* got \(2, 64\)"),
        (UNEVEN, (), "image tokens of all blocks must have the same number of tokens"),
        (
            additions(VISION)[0],
            random_prompts(2, depth=1, width=VISION),
            "image prompts and tokens that enter midway do not go together",
        ),
    ],
)
def test_what_does_not_fit_is_refused(model, images, added, prompts, message):
    for use in (
        lambda: encode_image(model, images, prompts, added),
        lambda: prompted(model, image=prompts, image_additions=added).__enter__(),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    assert hooks_of(model) == 0
