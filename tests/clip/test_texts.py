"""The texts of classes: what they read, where the context stands, what is refused."""

from __future__ import annotations

import pytest
import torch

from causalclip.clip.backbone import tokenize
from causalclip.clip.texts import class_tokens

NAMES = ["zero", "double_decker bus", "cat"]


def decode(row):
    """The words of a row of token ids, `X` for the placeholder."""
    ids = {tokenize(word)[0, 1].item(): word for word in ("X", "zero", ".")}
    return [ids.get(id_, id_) for id_ in row.tolist()]


def test_class_texts_read_prefix_name_dot():
    texts = class_tokens(NAMES, n_ctx=4, prefix="a photo of a")
    expected = ["a photo of a zero.", "a photo of a double decker bus.", "a photo of a cat."]
    assert torch.equal(texts.tokens, tokenize(expected))
    assert texts.positions.tolist() == [[1, 2, 3, 4]] * 3


def test_a_prefix_may_have_more_words_than_are_learned():
    texts = class_tokens(["zero"], n_ctx=2, prefix="a_photo_of_a")
    assert torch.equal(texts.tokens, tokenize("a photo of a zero."))
    assert texts.positions.tolist() == [[1, 2]]


def test_no_learned_context_leaves_the_text_as_it_is():
    texts = class_tokens(["zero"], n_ctx=0, prefix="a photo of a")
    assert torch.equal(texts.tokens, tokenize("a photo of a zero."))
    assert texts.positions.shape == (1, 0)


@pytest.mark.parametrize(
    ("position", "words", "where"),
    [
        ("end", ["X", "X", "X", "zero", "."], [1, 2, 3]),
        ("middle", ["X", "zero", "X", "X", "."], [1, 3, 4]),
        ("front", ["zero", "X", "X", "X", "."], [2, 3, 4]),
    ],
)
def test_the_context_stands_before_around_or_behind_the_name(position, words, where):
    texts = class_tokens(["zero"], n_ctx=3, position=position)
    assert decode(texts.tokens[0])[:8] == [49406, *words, 49407, 0]
    assert texts.positions.tolist() == [where]


def test_the_end_of_text_is_where_it_was():
    rows = [class_tokens(NAMES, n_ctx=4, position=p).tokens for p in ("end", "middle", "front")]
    assert torch.equal(rows[0].argmax(-1), rows[1].argmax(-1))
    assert torch.equal(rows[0].argmax(-1), rows[2].argmax(-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classnames": []}, "at least one class name"),
        ({"n_ctx": -1}, "n_ctx must be an int of at least 0, got -1"),
        ({"position": "start"}, "position must be one of .*'middle'.* got 'start'"),
        ({"prefix": "a"}, "prefix 'a' must have at least 2 tokens .* got 1"),
        ({"prefix": "a photo of", "position": "front"}, "must have exactly 2 tokens .* got 3"),
        ({"context_length": 7, "classnames": ["cat", "a b c d"]}, "name 'a b c d' .* 9 tokens"),
    ],
)
def test_class_texts_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        class_tokens(**{"classnames": NAMES, "n_ctx": 2, **options})
