"""Explanations, against known answers, finite differences and covered patches."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from causalclip import Predictor
from causalclip.engine.prediction import Reading
from causalclip.predict.commands import explain_main
from causalclip.predict.explain import class_attention, explain, last_layer, log_odds, relevance

TEMPLATES = [f"template {m}" for m in range(1, 5)]


@pytest.fixture
def picture(run, recorded):
    """The path of a test image."""
    return recorded(run("CDC"))["path"][0]


def transformed(predictor, path) -> torch.Tensor:
    return predictor.trainer.encoder.transform(Image.open(path).convert("RGB"))[None]


# The gradient


def test_of_a_linear_score_the_relevance_is_weight_times_value():
    layer, weight = torch.nn.Identity(), torch.tensor([[2.0, -1.0, 0.0]])
    values = torch.tensor([[3.0, 5.0, 7.0]])

    def scores():
        x = layer(values)
        again = layer(values)  # if a layer is called twice, its first output counts
        return {"one": (weight * x).sum() + again.sum(), "two": -4 * x[0, 2]}

    with torch.no_grad():  # as in the command
        maps = relevance(layer, scores)
    assert maps["one"].tolist() == [[6.0, -5.0, 0.0]]
    assert maps["two"].tolist() == [[0.0, 0.0, -28.0]]
    assert not layer._forward_hooks


def test_log_odds_of_a_softmax_are_a_logit_against_the_others():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    expected = 4 - np.logaddexp(1, 2)
    assert log_odds(Reading.of_logits(logits), 2).item() == pytest.approx(expected, rel=1e-5)
    certain = torch.tensor([[60.0, 0.0]], requires_grad=True)  # p rounds to 1
    log_odds(Reading.of_logits(certain), 0).backward()
    assert certain.grad.tolist() == [[pytest.approx(1), pytest.approx(-1)]]


# MMRL's tokens are between the class token and the patches.
@pytest.mark.parametrize("method", ["CDC", "CoOp", "CLIP_ICM", "MMRL"])
def test_a_map_says_how_the_odds_change_with_each_patch(method, run, picture):
    predictor = Predictor.load(run(method))
    explanation = explain(predictor, picture)
    values = explanation.maps["after the projection" if method == "CLIP_ICM" else "answer"]
    images, label = transformed(predictor, picture), explanation.answer.label
    first = 1 + predictor.trainer.settings.N_REP_TOKENS if method == "MMRL" else 1

    def odds(index: int, factor: float) -> float:
        """The log odds, computed from the probabilities, with one patch scaled."""

        def scale(_module, _inputs, output):
            if output.shape[1] < first + values.size:  # prompts only, which are replaced
                return output
            changed = output.clone()
            changed[:, first + index] *= factor
            return changed

        handle = last_layer(predictor.trainer.clip).register_forward_hook(scale)
        p = predictor.prediction(images).main.probabilities[0].double()
        handle.remove()
        return (p[label].log() - (p.sum() - p[label]).log()).item()

    step, patches = 0.05, range(0, values.size, 2)
    numeric = [(odds(i, 1 + step) - odds(i, 1 - step)) / (2 * step) for i in patches]
    atol = 0.02 * np.abs(values).max()
    np.testing.assert_allclose(values.ravel()[::2], numeric, rtol=0.05, atol=atol)
    # beyond the first order, the change of the log odds by covering a patch has the map's sign
    covered = [odds(i, 1.0) - odds(i, 0.0) for i in patches]
    assert np.corrcoef(values.ravel()[::2], covered)[0, 1] > 0.7


def test_each_reading_has_its_map_of_the_picture_that_went_in(run, picture):
    explanation = explain(Predictor.load(run("CDC")), picture)
    assert list(explanation.maps) == ["answer", *TEMPLATES]
    assert all(values.shape == (4, 4) for values in explanation.maps.values())
    assert not np.allclose(explanation.maps["template 1"], explanation.maps["template 2"])
    pixels = np.asarray(Image.open(picture).convert("RGB")) / 255  # 32 x 32 already
    np.testing.assert_allclose(explanation.picture, pixels, atol=1e-5)
    maps = explain(Predictor.load(run("CLIP_ICM")), picture).maps
    assert list(maps) == ["before the projection", "after the projection"]


# Attention


def test_attention_of_the_class_token_is_the_softmax_of_its_scores():
    width, heads = 8, 2
    with torch.random.fork_rng(devices=[]):
        attn = torch.nn.MultiheadAttention(width, heads)
    tokens = torch.randn(3, 6, width, generator=torch.Generator().manual_seed(1))
    q, k, _ = F.linear(tokens, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    each = [
        (q[:, :1, part] @ k[..., part].mT / (width // heads) ** 0.5).softmax(-1)
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(class_attention(attn, tokens), torch.stack(each).mean(0)[:, 0])


def test_a_map_of_attention_is_what_clip_itself_attends_to(run, picture):
    predictor = Predictor.load(run("CoOp"))
    clip, kept = predictor.trainer.clip, []
    attention = clip.visual.transformer.resblocks[-1].attn
    forward = attention.forward

    def with_weights(*args, **options):
        output, weights = forward(*args, **{**options, "need_weights": True})
        kept.append(weights)  # B L L
        return output, weights

    with patch.object(attention, "forward", with_weights), torch.no_grad():
        clip.encode_image(transformed(predictor, picture))
    ((name, values),) = explain(predictor, picture, kind="attention").maps.items()
    np.testing.assert_allclose(values.ravel(), kept[0][0, 0, 1:].numpy(), rtol=1e-4)
    assert name == "class token"
    assert values.sum() + kept[0][0, 0, 0].item() == pytest.approx(1)


def test_each_set_of_prompts_has_its_attention(run, picture):
    maps = explain(Predictor.load(run("CDC")), picture, kind="attention").maps
    assert list(maps) == TEMPLATES
    assert all(values.shape == (4, 4) and 0 < values.sum() < 1 for values in maps.values())
    assert not np.allclose(maps["template 1"], maps["template 2"])


# The command


def test_the_png_lies_in_the_folder_of_its_run_and_says_what_it_shows(
    run, picture, tmp_path, capsys
):
    folder, stem, other = run("CDC"), Path(picture).stem, tmp_path / "a.png"
    assert explain_main([str(folder), picture, "--class", "two"]) == 0
    assert explain_main([str(folder), picture, "--kind", "attention", "--output", str(other)]) == 0
    by_class = folder / "explained" / f"{stem}.gradient.two.png"
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.rpartition(": ")[2] for line in lines] == [str(by_class), str(other)]
    with Image.open(by_class) as png:
        assert png.format == "PNG" and png.width > 4 * png.height
        description = png.info["Description"]
    assert description.startswith(f"{picture}: ") and description.endswith("relevance for two")
    assert "attention of the class token" in Image.open(other).info["Description"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "cat"], "class must be one of zero, one"),
        (["--classes", "a", "a"], "twice: a"),
        (["--class", "two", "--kind", "attention"], "the same for all classes, got the class"),
    ],
)
def test_a_mistake_is_said_in_a_line(words, message, run, picture, capsys):
    assert explain_main([str(run("CoOp")), picture, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("causalclip explain: error: ")


@pytest.mark.parametrize("kind", ["gradient", "attention"])
def test_of_several_views_the_map_is_of_the_image_itself(kind, run, picture):
    template = ("TRAINER.ZEROSHOTCLIP.TEMPLATE", "a photo of a {}.")
    plain = explain(Predictor.load(run("ZeroshotCLIP", *template)), picture, kind=kind)
    tuned = run("TPT", "TRAINER.TPT.N_VIEWS", 10, "TRAINER.TPT.LR", 1e-12)
    found = explain(Predictor.load(tuned), picture, kind=kind)
    np.testing.assert_array_equal(found.picture, plain.picture)
    assert found.maps.keys() == plain.maps.keys()
    for name, values in plain.maps.items():
        assert values.any()
        np.testing.assert_allclose(found.maps[name], values, atol=1e-4 * np.abs(values).max())


def test_an_unknown_kind_is_refused(run, picture):
    with pytest.raises(ValueError, match="kind must be one of gradient, attention, got 'x'"):
        explain(Predictor.load(run("CoOp")), picture, kind="x")
