"""The texts of classes: what they read, where the context stands, what is refused."""

from __future__ import annotations

import pytest
import torch

from causalclip.clip.interface import tokenize
from causalclip.clip.texts import class_tokens, template_tokens

NAMES = ["zero", "double_decker bus", "cat"]


def decode(row):
    """The words of a row of token ids, `X` for the placeholder."""
    ids = {tokenize(word)[0, 1].item(): word for word in ("X", "zero", ".")}
    return [ids.get(id_, id_) for id_ in row.tolist()]


@pytest.mark.parametrize("n_ctx", [0, 2, 4])  # a prefix may have more words than are learned
def test_class_texts_read_prefix_name_dot(n_ctx):
    texts = class_tokens(NAMES, n_ctx=n_ctx, prefix="a_photo_of_a")
    expected = ["a photo of a zero.", "a photo of a double decker bus.", "a photo of a cat."]
    assert torch.equal(texts.tokens, tokenize(expected))
    assert texts.positions.tolist() == [[*range(1, 1 + n_ctx)]] * 3
    assert texts.to("cpu") is texts and texts.layout is texts.layout


def test_texts_of_a_template_read_as_it_says():
    texts = template_tokens(["hot_air_balloon"], "a photo of a {}, a type of pet.")
    expected = tokenize(["a photo of a hot air balloon, a type of pet."])
    assert torch.equal(texts.tokens, expected) and texts.positions.shape == (1, 0)


@pytest.mark.parametrize(
    ("position", "words", "where"),
    [
        ("end", ["X", "X", "X", "zero", "."], [1, 2, 3]),
        ("middle", ["X", "zero", "X", "X", "."], [1, 3, 4]),
        ("front", ["zero", "X", "X", "X", "."], [2, 3, 4]),
    ],
)
def test_the_context_stands_before_around_or_after_the_name(position, words, where):
    texts = class_tokens(["zero"], n_ctx=3, position=position)
    assert decode(texts.tokens[0])[:8] == [49406, *words, 49407, 0]
    assert texts.positions.tolist() == [where]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classnames": []}, "at least one class name"),
        ({"n_ctx": -1}, "n_ctx must be an int of at least 0, got -1"),
        ({"position": "start"}, "position must be one of .*'middle'.* got 'start'"),
        ({"prefix": "a"}, "prefix 'a' must have at least 2 tokens .* got 1"),
        ({"prefix": "a photo of", "position": "front"}, "must have exactly 2 tokens .* got 3"),
        ({"template": "a cat"}, "template must hold one {} for the class name, got 'a cat'"),
        ({"template": "a {}.", "position": "front"}, "template must begin with one {}"),
        ({"context_length": 7, "classnames": ["cat", "a b c d"]}, "name 'a b c d' .* 9 tokens"),
    ],
)
def test_class_texts_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        class_tokens(**{"classnames": NAMES, "n_ctx": 2, **options})
