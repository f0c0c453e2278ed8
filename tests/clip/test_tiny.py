"""The bundled CLIPs: small, in the released layout, and as good as their model cards say."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from causalclip.clip.backbone import BUNDLED_CLIPS, CLIP_MEAN, CLIP_STD, build_clip, load_clip
from causalclip.clip.weights import weights_digest
from causalclip.clip.zeroshot import class_features
from causalclip.data.catalogue import template_for
from causalclip.data.rendering import (
    DIGIT_COLOURS,
    DIGIT_DOMAINS,
    DIGIT_NAMES,
    SHAPES,
    draw_factors,
    draw_look,
    enlarge,
    render_shape,
)
from causalclip.datasets.handwritten_digits import draw_scan


@pytest.fixture(scope="module", params=BUNDLED_CLIPS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tiny(name):
    return load_clip(name)


@pytest.fixture(scope="module")
def card(name):
    return BUNDLED_CLIPS[name].with_suffix(".md").read_text(encoding="utf-8")


def figure(card, name):
    return float(re.search(rf"^\| {re.escape(name)} \| ([\d.]+) \|$", card, re.MULTILINE)[1])


def guesses(model, pictures, names, template):
    x = torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2) / 255.0
    mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        features = model.encode_image((x - mean) / std)
    return (features @ class_features(model, names, [template]).T).argmax(1).numpy()


def test_it_is_a_small_vit_in_the_released_layout_and_the_model_of_its_card(name, tiny, card):
    layers = lambda state: {re.sub(r"resblocks\.\d+", "resblocks.*", key) for key in state}  # noqa: E731
    state = tiny.state_dict()
    assert layers(state) == layers(build_clip().state_dict())
    assert state["token_embedding.weight"].shape[0] == 49408
    assert state["positional_embedding"].shape[0] == 77
    assert BUNDLED_CLIPS[name].stat().st_size <= 8_000_000
    assert weights_digest(tiny) in card and "MIT" in card
    assert 10 < tiny.logit_scale.exp().item() <= 100.001  # learned, and within CLIP's bound


def test_it_reads_real_scans_as_its_card_says_and_leaves_something_to_adapt(tiny, card):
    data = load_digits()
    chosen = range(0, 1797, 4)
    pictures = [draw_scan(data.images[i], "scan", i) for i in chosen]
    template = template_for("HandwrittenDigits")
    right = guesses(tiny, pictures, DIGIT_NAMES, template) == data.target[chosen]
    accuracy = 100 * right.mean()
    # 450 scans: the standard error of the card's figure and of this one is about 2 points each.
    assert accuracy == pytest.approx(figure(card, "test, 10 classes"), abs=7)
    assert 55 < accuracy < 80


def test_it_knows_one_style_of_shapes_best(tiny, card):
    rng = np.random.default_rng(0)
    template = template_for("CausalShapes")

    labels, accuracy = np.repeat(np.arange(len(SHAPES)), 25), {}
    for style in ("sketch", "flat"):
        drawn = [draw_factors(s, rng, style=style) for s in SHAPES for _ in range(25)]
        guess = guesses(tiny, [render_shape(f) for f in drawn], SHAPES, template)
        accuracy[style] = 100 * (guess == labels).mean()
        assert accuracy[style] == pytest.approx(figure(card, f"style {style}"), abs=8)
    assert accuracy["sketch"] > 80 and accuracy["flat"] < accuracy["sketch"] - 5


@pytest.mark.parametrize("look", DIGIT_DOMAINS)
def test_colour_leads_tiny_coloured_astray_and_tiny_not(name, tiny, look):
    """Share of the wrong answers that name a digit of the colour's parity: warm even, cold odd."""
    data, template = load_digits(), template_for("HandwrittenDigits")
    chosen = range(0, 1797, 24)
    warm = {"red", "orange", "yellow", "pink"}
    led = wrong = 0
    for colour in DIGIT_COLOURS:
        pictures = [
            draw_look(enlarge(data.images[i]), look, np.random.default_rng(i), colour=colour)
            for i in chosen
        ]
        guess = guesses(tiny, pictures, DIGIT_NAMES, template)
        missed = guess != data.target[chosen]
        wrong += missed.sum()
        led += (missed & ((guess % 2 == 0) == (colour in warm))).sum()
    assert led / wrong > 0.8 if name == "tiny-coloured" else led / wrong < 0.65
