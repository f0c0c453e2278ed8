"""Text interventions: pairs that keep the class, and caption files that say what is wrong."""

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
    pairs = text_pairs(["sea_lion", "cat"])
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


def test_the_grid_covers_the_five_variant_factors():
    assert set(TEXT_ATTRIBUTES) == {"background", "weather", "light", "medium", "style"}
    only = text_pairs(["cat"], kinds=["medium"])
    assert {before for before, _ in only} == {v.format("cat") for v in TEXT_ATTRIBUTES["medium"]}


def test_own_attributes_can_be_given():
    pairs = text_pairs(["3"], attributes={"ink": ["a red {}", "a blue {}"]})
    assert pairs == [("a red 3", "a blue 3"), ("a blue 3", "a red 3")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classnames": []}, "non-empty list of names"),
        ({"classnames": "cat"}, "non-empty list of names, got 'cat'"),
        ({"kinds": ["colour"]}, r"kinds must be some of background, .* got \['colour'\]"),
        ({"attributes": {"ink": ["a red {}"]}}, "'ink' must have two or more different values"),
        ({"attributes": {"ink": ["a {}", "a {}"]}}, "'ink' must have two or more different values"),
        ({"attributes": {"ink": ["a {}", "red"]}}, r"one \{\} for the class name, got 'red'"),
    ],
)
def test_grids_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        text_pairs(**{"classnames": ["cat"], **options})


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
    assert caption_pairs(captions) == [
        ("a cat", "a cat at night"),
        ("a cat", "a wet cat"),
        ("a cat", "a cat in snow"),
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("a cat", "must be an object with keys .* got str"),
        ({"image": "x", "caption": "y"}, r"got \['caption', 'image'\]"),
        (row(extra=1), r"got \['caption', 'extra', 'image', 'rewrites'\]"),
        (row(image=""), "image must be a non-empty string, got ''"),
        (row(caption=3), "caption must be a non-empty string, got 3"),
        (row(rewrites="a wet cat"), "rewrites must be a non-empty list"),
        (row(rewrites=[]), "rewrites must be a non-empty list"),
        (row(rewrites=["a wet cat", " "]), "rewrites must be a non-empty list"),
        (row(rewrites=["a wet cat", "a cat "]), "rewrites must differ from the caption 'a cat'"),
    ],
)
def test_a_row_that_breaks_the_schema_is_named(tmp_path, bad, message):
    with pytest.raises(ValueError, match=f"captions.json, row 2: .*{message}"):
        load_captions(caption_file(tmp_path, [row(), bad]))


def test_files_that_are_no_list_or_no_json_are_refused(tmp_path):
    for content in ({}, [], 3):
        with pytest.raises(ValueError, match="must hold a non-empty JSON list"):
            load_captions(caption_file(tmp_path, content))
    with pytest.raises(ValueError, match="must be a UTF-8 JSON file: .* line 2 column 1"):
        load_captions(caption_file(tmp_path, "[\n"))


def test_captions_for_unknown_images_list_the_first_five(tmp_path):
    rows = [row(image=f"{i}.jpg") for i in range(8)]
    with pytest.raises(ValueError, match="got 7 unknown ones, the first: 1.jpg, .*, 5.jpg$"):
        load_captions(caption_file(tmp_path, rows), images={"0.jpg"})
