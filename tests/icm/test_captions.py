"""Text interventions: pairs that keep the class, and caption files whose faults are named."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from causalclip.icm.captions import (
    TEXT_ATTRIBUTES,
    CaptionedImage,
    caption_pairs,
    load_captions,
    text_pairs,
)


def test_text_pairs_change_one_attribute_and_keep_the_class():
    pairs = text_pairs(["sea lion", "cat"])
    sizes = [len(values) for values in TEXT_ATTRIBUTES.values()]
    assert len(pairs) == len(set(pairs)) == 2 * sum(n * (n - 1) for n in sizes)
    groups = [
        {value.format(name) for value in values}
        for values in TEXT_ATTRIBUTES.values()
        for name in ("sea lion", "cat")
    ]
    for before, after in pairs:
        assert before != after
        assert ("sea lion" in before) == ("sea lion" in after)
        assert sum({before, after} <= group for group in groups) == 1
    assert Counter(before for before, _ in pairs) == Counter(after for _, after in pairs)


def test_the_grid_covers_the_five_variant_factors_with_one_place_for_the_class():
    assert set(TEXT_ATTRIBUTES) == {"background", "weather", "light", "medium", "style"}
    for values in TEXT_ATTRIBUTES.values():
        assert len(set(values)) == len(values) >= 2
        assert {value.count("{}") for value in values} == {1}


def caption_file(tmp_path, content):
    path = tmp_path / "captions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def row(**changes):
    good = {"image": "cat/1.jpg", "caption": "a cat", "rewrites": ["a cat at night", "a wet cat"]}
    return {**good, **changes}


def test_a_caption_file_gives_its_pairs(tmp_path):
    path = caption_file(tmp_path, [row(), row(image="dog/1.jpg", rewrites=["a cat in snow"])])
    captions = load_captions(path, images=["dog/1.jpg", "cat/1.jpg", "cat/2.jpg"])
    assert captions[0] == CaptionedImage("cat/1.jpg", "a cat", ("a cat at night", "a wet cat"))
    rewrites = ("a cat at night", "a wet cat", "a cat in snow")
    assert caption_pairs(captions) == [("a cat", rewrite) for rewrite in rewrites]


ROW = "captions.json, row 2: .*"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([row(), "a cat"], f"{ROW}must be an object with keys .* got str"),
        ([row(), {"image": "x", "caption": "y"}], rf"{ROW}got \['caption', 'image'\]"),
        ([row(), row(extra=1)], rf"{ROW}got \['caption', 'extra', 'image', 'rewrites'\]"),
        ([row(), row(image="")], f"{ROW}image must be a non-empty string, got ''"),
        ([row(), row(caption=3)], f"{ROW}caption must be a non-empty string, got 3"),
        ([row(), row(rewrites="a wet cat")], f"{ROW}rewrites must be a non-empty list"),
        ([row(), row(rewrites=[])], f"{ROW}rewrites must be a non-empty list"),
        ([row(), row(rewrites=["a wet cat", " "])], f"{ROW}rewrites must be a non-empty list"),
        ([row(), row(rewrites=["a cat "])], f"{ROW}rewrites must differ from the caption 'a cat'"),
        ({}, "must hold a non-empty JSON list, got dict"),
        ([], "must hold a non-empty JSON list"),
        ("[\n", "must be a UTF-8 JSON file: .* line 2 column 1"),
        (
            [row(), *(row(image=f"{i}.jpg") for i in range(7))],
            "got 7 unknown ones, the first: 0.jpg, .*, 4.jpg$",
        ),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load_captions(caption_file(tmp_path, content), images={"cat/1.jpg"})
