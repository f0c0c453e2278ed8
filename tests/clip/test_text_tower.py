"""The text tower that computes what is read, against the model's own forward of 77 tokens."""

from __future__ import annotations

import pytest
import torch
from exact import assert_same, exact_clip, low_precision_clip, random_prompts, slow_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from causalclip.clip import text_tower
from causalclip.clip.encode import encode_text, encode_texts
from causalclip.clip.injection import prompted
from causalclip.clip.interface import tokenize
from causalclip.clip.openai_clip import has_plain_text_tower
from causalclip.clip.texts import class_tokens

NAMES = ["cat", "double_decker bus", "dog", "car", "a very long name of a thing", "cat"]


@pytest.fixture(scope="module")
def model():
    return exact_clip()


def prompts(*shape, depth, seed=0):
    return random_prompts(*shape, depth=depth, width=24, seed=seed)


def full_texts(model, texts, text):
    """(G, K, E) by the model's own forward: all 77 tokens of every text, set after set."""
    features = []
    for own in zip(*text, strict=True):
        with prompted(model, text=own, text_positions=texts.positions):
            features.append(model.encode_text(texts.tokens))
    return torch.stack(features)


def assert_equal_in_value_and_gradient(model, texts, text):
    assert_same(encode_texts(model, texts, text), full_texts(model, texts, text), text)


def test_deep_prompts_of_all_classes_after_a_context_of_each(model):
    texts = class_tokens(NAMES, n_ctx=2)
    text = [*prompts(1, len(NAMES), 2, depth=1), *prompts(1, 2, depth=2, seed=5)]
    assert_equal_in_value_and_gradient(model, texts, text)


@pytest.mark.parametrize("hooked", [False, True])
def test_a_block_without_prompts_is_left_as_it_is(hooked):
    """TCP: one context, a block that is skipped, tokens of each class (fast path and hooks)."""
    model, texts = exact_clip(), class_tokens(NAMES, n_ctx=2)
    (context,), (own,) = prompts(1, 2, depth=1), prompts(1, len(NAMES), 2, depth=1, seed=5)
    full = slow_texts(model, texts.tokens, [context[0], None, own[0]], texts.positions)
    if hooked:
        model.transformer.resblocks[0].register_forward_hook(lambda *_: None)
    assert_same(encode_texts(model, texts, [context, None, own])[0], full, [context, own])
    assert not torch.allclose(encode_texts(model, texts, [context])[0], full)


@pytest.mark.parametrize("words", [["cat", "word " * 60], ["word " * 60], ["cat"] * 3])
def test_names_of_any_length(model, words):
    texts = class_tokens(words, n_ctx=4, prefix="a photo of a")
    assert_equal_in_value_and_gradient(model, texts, prompts(2, 4, depth=2))


@settings(max_examples=25)
@given(
    names=st.lists(st.sampled_from(["cat", "a b", "one two three", "x y z u v w"]), min_size=1),
    heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(1, 3),
    n_ctx=st.integers(1, 5),
    position=st.sampled_from(["end", "middle", "front"]),
    data=st.data(),
)
def test_any_shape_gives_what_77_tokens_give(names, heads, layers, n_ctx, position, data):
    model = exact_clip(transformer_heads=heads, transformer_layers=layers)
    own = data.draw(st.sampled_from([(), (len(names),)]))
    sets, depth = data.draw(st.integers(1, 3)), data.draw(st.integers(1, layers))
    texts = class_tokens(names, n_ctx=n_ctx, position=position)
    assert_equal_in_value_and_gradient(model, texts, prompts(sets, *own, n_ctx, depth=depth))


@pytest.mark.parametrize(
    "texts",
    [
        ["a photo of a cat.", "a photo of a dog, a type of pet."],
        ["cat"],
        ["art.", "the cat"],
        ["word " * 75],  # the full context
    ],
)
def test_plain_texts_give_what_77_tokens_give(model, texts):
    tokens = tokenize(texts)
    assert torch.equal(encode_text(model, tokens, truncate=False), model.encode_text(tokens))
    assert_same(encode_text(model, tokens), model.encode_text(tokens))


def test_a_learning_model_gets_the_gradients_of_its_own_forward():
    model, tokens = exact_clip().requires_grad_(True), tokenize(NAMES)
    weights = [*model.transformer.parameters(), model.positional_embedding, model.text_projection]
    weights += [*model.ln_final.parameters(), model.token_embedding.weight]
    assert_same(encode_text(model, tokens), model.encode_text(tokens), weights)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16, "autocast"])
def test_low_precision_is_as_near_to_full_precision_as_the_models_own(dtype):
    autocast, texts = dtype == "autocast", class_tokens(NAMES, n_ctx=2)
    exact = low_precision_clip(torch.float32)
    model = exact if autocast else low_precision_clip(dtype)
    text = [p.detach().float().requires_grad_() for p in prompts(2, 2, depth=2)]
    true = full_texts(exact, texts, text)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        ours, own = encode_texts(model, texts, text), full_texts(model, texts, text)
    assert ours.dtype == own.dtype
    assert (ours - true).norm() <= 1.5 * (own - true).norm()
    for gradient in torch.autograd.grad(ours.float().square().sum(), text):
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()


def count_tokens(model, run):
    """How many tokens each linear layer of the MLPs sees."""
    seen = []
    handles = [
        block.mlp.c_fc.register_forward_hook(
            lambda module, args, output: seen.append(output.numel() // output.shape[-1])
        )
        for block in model.transformer.resblocks
    ]
    run()
    for handle in handles:
        handle.remove()
    return seen


def test_shared_tokens_are_computed_once_and_the_last_block_reads_the_ends(model):
    texts = class_tokens(["cat", "double decker bus"], n_ctx=16)
    (context,), (own,) = prompts(1, 16, depth=1), prompts(1, 2, 16, depth=1)
    names = (1 + 1 + 1) + (3 + 1 + 1)  # the name, the dot, the end
    counted = count_tokens(model, lambda: encode_texts(model, texts, [context]))
    assert counted == [17 + names, 17 + names, 2]
    # A context is shared up to the block that each class enters for itself.
    counted = count_tokens(model, lambda: encode_texts(model, texts, [context, own]))
    assert counted == [17 + names, 1 + 2 * 16 + names, 2]


def test_many_sets_run_in_parts_of_bounded_size(model, monkeypatch):
    texts, text = class_tokens(NAMES, n_ctx=2), prompts(5, 2, depth=2)
    whole, tokens = encode_texts(model, texts, text), len(texts.layout.ids)
    monkeypatch.setattr(text_tower, "MAX_HIDDEN", 2 * tokens * 4 * 24)
    counted = count_tokens(model, lambda: encode_texts(model, texts, text))
    assert max(counted) == 2 * tokens
    assert_same(encode_texts(model, texts, text), whole)


@pytest.mark.parametrize("kind", ["block", "attention", "subclass", "forward"])
def test_a_tower_with_something_on_it_runs_through_its_own_forward(kind):
    model, texts = exact_clip(), class_tokens(NAMES, n_ctx=2)
    text, seen = prompts(2, 2, depth=2), []
    block = model.transformer.resblocks[1]
    if kind == "forward":
        forward = block.forward
        block.forward = lambda x: seen.append(1) or forward(x)
    elif kind == "subclass":
        block.__class__ = type("Block", (type(block),), {})
    if kind != "forward":
        module = block.attn if kind == "attention" else block
        module.register_forward_hook(lambda module, args, output: seen.append(1))
    assert not has_plain_text_tower(model)
    ours = encode_texts(model, texts, text)
    assert seen
    assert_same(ours, full_texts(model, texts, text))
    assert torch.equal(encode_texts(model, texts, [])[0], encode_text(model, texts.tokens))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (prompts(1, 3, depth=1), "text_positions must name 3 positions"),
        (prompts(1, 4, 2, depth=1), "contexts of 4 classes cannot encode 6 classes"),
    ],
)
def test_prompts_that_do_not_fit_the_texts_are_refused(model, text, message):
    with pytest.raises(ValueError, match=message):
        encode_texts(model, class_tokens(NAMES, n_ctx=2), text)
