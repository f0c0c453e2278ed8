"""DATASET.DESCRIPTIONS: sentences for each class, read, checked, averaged and given to methods."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from causalclip.clip.backbone import load_clip
from causalclip.clip.interface import OPENAI_TOKENIZER, tokenize
from causalclip.clip.zeroshot import mean_text_features
from causalclip.data.rendering import DIGIT_NAMES, SHAPES
from causalclip.engine.contexts import load_descriptions

NAMES = ["grey_parrot", "T-shirt"]
OWN = {"Grey parrot": ["A grey bird.", "With a red tail."], "t-shirt": ["A shirt."], "cat": ["A."]}
BUNDLED = Path(__file__).parents[2] / "configs" / "descriptions"
DIGITS = str(BUNDLED / "handwritten_digits.json")
READERS = [
    "CDC", "CLIP_Adapter", "CLIP_ICM", "GDA", "KgCoOp", "LPPlusPlus",
    "MMRL", "MMRLpp", "ProGrad", "ProLIP",
    "PromptSRC", "TCP", "TDA", "TipAdapter", "TipAdapterF", "VPT", "ZeroshotCLIP", "ZeroshotCLIP2",
]  # fmt: skip


def read(path: Path, names=NAMES):
    return load_descriptions(path, names, OPENAI_TOKENIZER, 77)


def test_a_class_is_found_without_regard_to_case_and_underscore(tmp_path):
    (tmp_path / "own.json").write_text(json.dumps(OWN))
    assert read(tmp_path / "own.json") == [OWN["Grey parrot"], OWN["t-shirt"]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("no json", "must be a UTF-8 JSON file"),
        ([1], "must hold an object of lists, got list"),
        ({**OWN, "grey_parrot": ["A."]}, "must describe a class once, got 'grey_parrot' again"),
        (
            {"cat": ["A."]},
            r"other classes \(cat\) than .* \(grey_parrot, T-shirt\).*is it of another data set",
        ),
        ({"t-shirt": ["A."]}, "must describe every class, got none of 1: grey_parrot"),
        ({**OWN, "t-shirt": []}, "class 'T-shirt': must be a non-empty list of sentences"),
        ({**OWN, "t-shirt": "A."}, "class 'T-shirt': must be a non-empty list of sentences"),
        ({**OWN, "t-shirt": [" "]}, "class 'T-shirt': a sentence must be a non-empty string"),
        ({**OWN, "t-shirt": ["a " * 76]}, "class 'T-shirt': a sentence may have 77 tokens, got 78"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_class(content, says, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=says):
        read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"DATASET.DESCRIPTIONS .*none.json must be"):
        read(tmp_path / "none.json")


def test_class_features_are_the_mean_of_unit_features():
    clip = load_clip("tiny")
    texts = [["a photo of a cat.", "a cat", "the number two."], ["a dog"]]
    expected = []
    for own in texts:
        with torch.no_grad():
            features = clip.encode_text(tokenize(own)).double().numpy()
        mean = (features / np.linalg.norm(features, axis=1, keepdims=True)).mean(0)
        expected.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(mean_text_features(clip, texts).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("method", READERS)
def test_every_method_with_a_hand_crafted_text_reads_them(method, make_trainer, tmp_path):
    trainer = make_trainer(method, tmp_path, "DATASET.DESCRIPTIONS", DIGITS)
    sentences = json.loads(Path(DIGITS).read_text())
    expected = mean_text_features(trainer.clip, [sentences[name] for name in trainer.classnames])
    for name in ("handcrafted", "teacher_text", "text"):
        if hasattr(trainer, name):
            torch.testing.assert_close(getattr(trainer, name), expected)
            return
    raise AssertionError(f"{method} keeps no hand-crafted text")


def test_a_methods_own_template_comes_before_them(make_trainer, tmp_path):
    options = ("DATASET.DESCRIPTIONS", DIGITS, "TRAINER.ZEROSHOTCLIP.TEMPLATE", "one {}")
    own = make_trainer("ZeroshotCLIP", tmp_path / "a", *options)
    plain = make_trainer("ZeroshotCLIP", tmp_path / "b", *options[2:])
    assert torch.equal(own.text, plain.text)


def test_clip_icm_pairs_the_descriptions_of_a_class(make_trainer, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "causalclip.icm.folds.text_moments", lambda pairs, *_, **__: seen.append(list(pairs))
    )
    options = ("DATASET.DESCRIPTIONS", DIGITS, "TRAINER.CLIP_ICM.INTERVENTIONS", "TEXT")
    trainer = make_trainer("CLIP_ICM", tmp_path, *options)
    trainer.sources.text_moments(trainer.sources.groups[0], np.empty((0, 0)))
    sentences = json.loads(Path(DIGITS).read_text())
    by_class = [permutations(sentences[name], 2) for name in trainer.classnames]
    assert seen == [[pair for pairs in by_class for pair in pairs]]


@pytest.mark.parametrize(
    ("file", "names"), [("handwritten_digits", DIGIT_NAMES), ("causal_shapes", SHAPES)]
)
def test_the_bundled_sets_are_described(file, names):
    assert {len(own) for own in read(BUNDLED / f"{file}.json", names)} == {5}
