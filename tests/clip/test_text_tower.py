"""The text tower that computes what is read, against the model's own forward of 77 tokens."""

from __future__ import annotations

import pytest
import torch
from exact import SHAPE, exact_clip, random_prompts
from hypothesis import given, settings
from hypothesis import strategies as st

from causalclip.clip import plain, text_tower
from causalclip.clip.backbone import build_clip, tokenize
from causalclip.clip.encode import encode_text, encode_texts
from causalclip.clip.injection import prompted
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


def assert_equal_in_value_and_gradient(model, texts, text, *, tolerance=1e-12):
    ours, full = encode_texts(model, texts, text), full_texts(model, texts, text)
    seen = torch.randn(full.shape, generator=torch.Generator().manual_seed(3), dtype=full.dtype)
    pairs = [(ours, full)]
    pairs += zip(
        torch.autograd.grad((ours * seen).sum(), text),
        torch.autograd.grad((full * seen).sum(), text),
        strict=True,
    )
    for one, other in pairs:
        scale = other.abs().max().item()
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(1, scale))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("sets", [(1,), (3,), (1, len(NAMES)), (2, len(NAMES))])
def test_prompts_give_what_77_tokens_give(model, position, depth, sets):
    """One set (CoOp, MaPLe), one a template or image (CDC, CoCoOp), one a class (CSC), both."""
    texts = class_tokens(NAMES, n_ctx=3, position=position)
    assert_equal_in_value_and_gradient(model, texts, prompts(*sets, 3, depth=depth))


def test_deep_prompts_of_all_classes_behind_a_context_of_each(model):
    texts = class_tokens(NAMES, n_ctx=2)
    text = [*prompts(1, len(NAMES), 2, depth=1), *prompts(1, 2, depth=2, seed=5)]
    assert_equal_in_value_and_gradient(model, texts, text)


def written_out(model, texts, context, own):
    """(K, E): all 77 tokens, the context at first, and at block 2 the classes' own in its place."""
    x = model.token_embedding(texts.tokens)
    x = torch.cat([x[:, :1], context.expand(len(x), -1, -1), x[:, 1 + len(context) :]], dim=1)
    x = (x + model.positional_embedding).transpose(0, 1)
    for i, block in enumerate(model.transformer.resblocks):
        if i == 2:
            x = torch.cat([x[:1], own.transpose(0, 1), x[1 + len(context) :]])
        x = block(x)
    ends = x.transpose(0, 1)[range(len(texts)), texts.tokens.argmax(dim=-1)]
    return model.ln_final(ends) @ model.text_projection


@pytest.mark.parametrize("hooked", [False, True])
def test_a_block_without_prompts_is_left_as_it_is(hooked):
    """TCP: one context, a block that is skipped, tokens of each class (fast path and hooks)."""
    model, texts = exact_clip(), class_tokens(NAMES, n_ctx=2)
    (context,), (own,) = prompts(1, 2, depth=1), prompts(1, len(NAMES), 2, depth=1, seed=5)
    full = written_out(model, texts, context[0], own[0])
    if hooked:
        model.transformer.resblocks[0].register_forward_hook(lambda *_: None)
    ours = encode_texts(model, texts, [context, None, own])[0]
    for output, other in zip(*(gradients(f, context, own) for f in (ours, full)), strict=True):
        torch.testing.assert_close(output, other, rtol=1e-10, atol=1e-11)
    assert not torch.allclose(encode_texts(model, texts, [context])[0], full)


def gradients(features, *prompts):
    """The features, and the gradients of their squares."""
    return features, *torch.autograd.grad(features.square().sum(), prompts)


@pytest.mark.parametrize(
    "names",
    [
        ["cat"],
        ["cat", "word " * 60],
        ["word " * 60],
        ["cat"] * 3,
        [f"thing {i}" for i in range(40)],
    ],
    ids=["one class", "one word and sixty", "sixty words alone", "the same thrice", "forty"],
)
def test_names_of_any_number_and_length(model, names):
    texts = class_tokens(names, n_ctx=4, prefix="a photo of a")
    assert_equal_in_value_and_gradient(model, texts, prompts(2, 4, depth=2))


def test_a_thousand_classes(model):
    names = [f"{a} {b}" for a in range(25) for b in range(40)]
    texts = class_tokens(names, n_ctx=2, context_length=77)
    text = prompts(1, 2, depth=1)
    ours = encode_texts(model, texts, text)[0, ::100]
    some = class_tokens(names[::100], n_ctx=2)
    torch.testing.assert_close(ours, full_texts(model, some, text)[0], rtol=0, atol=1e-11)


@settings(max_examples=25, deadline=None)
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
    [["a photo of a cat.", "a photo of a dog, a type of pet."], ["cat"], ["art.", "the cat"]],
)
def test_plain_texts_give_what_77_tokens_give(model, texts):
    tokens = tokenize(texts)
    torch.testing.assert_close(
        encode_text(model, tokens), model.encode_text(tokens), rtol=0, atol=1e-12
    )


def test_a_learning_model_gets_the_gradients_of_its_own_forward():
    model = exact_clip().requires_grad_(True)
    tokens = tokenize(NAMES)
    weights = [*model.transformer.parameters(), model.positional_embedding, model.text_projection]
    weights += [*model.ln_final.parameters(), model.token_embedding.weight]
    ours = torch.autograd.grad(encode_text(model, tokens).square().sum(), weights)
    full = torch.autograd.grad(model.encode_text(tokens).square().sum(), weights)
    for one, other in zip(ours, full, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def low_precision_clip(dtype):
    model = build_clip(**SHAPE).requires_grad_(False)
    for name, weight in model.named_parameters():
        if "ln_" not in name and "embedding" not in name:  # what OpenAI's convert_weights leaves
            weight.data = weight.data.to(dtype)
    return model


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_low_precision_is_as_near_to_full_precision_as_the_models_own(dtype):
    model, exact = low_precision_clip(dtype), build_clip(**SHAPE).requires_grad_(False)
    texts = class_tokens(NAMES, n_ctx=2)
    text = [p.detach().float().requires_grad_() for p in prompts(2, 2, depth=2)]
    ours, own = encode_texts(model, texts, text), full_texts(model, texts, text)
    true = full_texts(exact, texts, text)
    assert ours.dtype == dtype
    assert (ours - true).norm() <= 1.5 * (own - true).norm()
    for gradient in torch.autograd.grad(ours.float().square().sum(), text):
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()


def test_autocast_is_as_near_to_full_precision_as_the_models_own():
    model, texts = build_clip(**SHAPE).requires_grad_(False), class_tokens(NAMES, n_ctx=2)
    text = [p.detach().float() for p in prompts(2, 2, depth=2)]
    true = full_texts(model, texts, text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, own = encode_texts(model, texts, text), full_texts(model, texts, text)
    assert ours.dtype == own.dtype
    assert (ours - true).norm() <= 1.5 * (own - true).norm()


def count_tokens(model, run):
    """How many tokens each linear layer of the MLPs sees."""
    seen, handles = [], []
    for block in model.transformer.resblocks:
        handles.append(
            block.mlp.c_fc.register_forward_hook(
                lambda module, args, output: seen.append(output.numel() // output.shape[-1])
            )
        )
    run()
    for handle in handles:
        handle.remove()
    return seen


def test_shared_tokens_are_computed_once_and_the_last_block_reads_the_ends(model):
    texts = class_tokens(["cat", "double decker bus"], n_ctx=16)
    text = prompts(1, 16, depth=1)
    own = (1 + 1 + 1) + (3 + 1 + 1)  # the name, the dot, the end
    assert count_tokens(model, lambda: encode_texts(model, texts, text)) == [
        17 + own, 17 + own, 2
    ]  # fmt: skip


def test_a_context_is_shared_up_to_the_block_that_each_class_enters_for_itself(model):
    texts = class_tokens(["cat", "double decker bus"], n_ctx=16)
    (context,), (own,) = prompts(1, 16, depth=1), prompts(1, 2, 16, depth=1)
    names = (1 + 1 + 1) + (3 + 1 + 1)  # the name, the dot, the end
    counted = count_tokens(model, lambda: encode_texts(model, texts, [context, own]))
    assert counted == [17 + names, 1 + 2 * 16 + names, 2]


def test_many_sets_run_in_parts_of_bounded_size(model, monkeypatch):
    texts, text = class_tokens(NAMES, n_ctx=2), prompts(5, 2, depth=2)
    whole = encode_texts(model, texts, text)
    tokens = len(texts.layout.ids)
    monkeypatch.setattr(text_tower, "AT_ONCE", 2 * tokens * 4 * 24)
    counted = count_tokens(model, lambda: encode_texts(model, texts, text))
    assert max(counted) == 2 * tokens
    torch.testing.assert_close(encode_texts(model, texts, text), whole, rtol=0, atol=1e-13)


@pytest.mark.parametrize("hang", ["block", "attention", "subclass", "forward"])
def test_a_tower_with_something_on_it_runs_through_its_own_forward(hang):
    model, texts = exact_clip(), class_tokens(NAMES, n_ctx=2)
    text, seen = prompts(2, 2, depth=2), []
    block = model.transformer.resblocks[1]
    note = lambda module, args, output: seen.append(1)  # noqa: E731
    if hang == "block":
        block.register_forward_hook(note)
    elif hang == "attention":
        block.attn.register_forward_hook(note)
    elif hang == "subclass":
        block.__class__ = type("Block", (type(block),), {})
        block.register_forward_hook(note)
    else:
        forward = block.forward
        block.forward = lambda x: seen.append(1) or forward(x)
    assert not plain.has_plain_text_tower(model)
    ours = encode_texts(model, texts, text)
    assert seen
    torch.testing.assert_close(ours, full_texts(model, texts, text), rtol=0, atol=1e-12)
    assert torch.equal(encode_texts(model, texts, [])[0], encode_text(model, texts.tokens))


def test_without_prompts_the_placeholders_are_words(model):
    texts = class_tokens(NAMES, n_ctx=2, prefix="a photo of a")
    expected = model.encode_text(texts.tokens)
    torch.testing.assert_close(encode_texts(model, texts, [])[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (prompts(1, 2, depth=4), "text prompt depth must be at most 3"),
        (prompts(1, 3, depth=1), "text_positions must name 3 positions"),
        (prompts(1, 4, 2, depth=1), "contexts of 4 classes cannot encode 6 classes"),
        ([None, *prompts(1, 2, depth=1)], r"text\[0\] must be prompts"),
        ([torch.zeros(1, 2, 8)], r"text\[0\] must have shape \(n, 24\)"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(model, text, message):
    with pytest.raises(ValueError, match=message):
        encode_texts(model, class_tokens(NAMES, n_ctx=2), text)
