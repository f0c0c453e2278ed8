"""Which tokens of several texts are computed, read off by hand and off random token rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from causalclip.clip.layout import text_layout
from causalclip.clip.texts import class_tokens

START, END = 98, 99  # the end token has the largest id


def rows(*texts, width=10):
    return torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])


def test_a_common_start_comes_once_and_texts_follow_each_other_by_length():
    layout = text_layout(rows([START, 7, 5, 6, END], [START, 7, 8, END]))
    assert layout.n_shared == 2
    assert layout.ids.tolist() == [START, 7, 8, END, 5, 6, END]
    assert layout.positions.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert layout.groups == ((1, 2), (1, 3))
    assert layout.ends.tolist() == [3, 6] and layout.unsorted.tolist() == [1, 0]
    assert text_layout(rows([START, END], [97, END])).n_shared == 0


@pytest.mark.parametrize(
    ("position", "shared", "prompted"), [("end", 5, 4), ("middle", 3, 2 + 2 * 2), ("front", 1, 8)]
)
def test_a_context_is_shared_up_to_the_class_names(position, shared, prompted):
    texts = class_tokens(["cat", "double decker bus"], n_ctx=4, position=position)
    layout = texts.layout
    assert layout.n_shared == shared and len(layout.prompted) == prompted
    assert layout.ids[layout.prompted].tolist() == [0] * prompted
    assert sorted(set(layout.rows.tolist())) == [0, 1, 2, 3]


def test_a_word_that_reads_like_the_placeholder_is_no_prompt():
    texts = class_tokens(["cat", "cat X"], n_ctx=1, position="front")
    layout = texts.layout  # "cat <0>." and "cat X <0>."
    assert layout.n_shared == 2
    assert (layout.ids == texts.tokens[1, 2]).sum() == 1 and len(layout.prompted) == 2


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=6))
def test_every_text_can_be_read_back(words):
    tokens = rows(*([START, *text, END] for text in words))
    layout, at = text_layout(tokens), 0
    start, read = layout.ids[: layout.n_shared].tolist(), []
    own = layout.ids[layout.n_shared :]
    for count, length in layout.groups:
        for _ in range(count):
            read.append([*start, *own[at : at + length].tolist()])
            at += length
    assert at == len(own)
    assert [read[i] for i in layout.unsorted.tolist()] == [[START, *text, END] for text in words]
    assert layout.ids[layout.ends].tolist() == [END] * len(words)
