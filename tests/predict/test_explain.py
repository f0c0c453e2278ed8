"""What speaks for a class: against known answers, finite differences and covered patches."""

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
from causalclip.predict import explain_command
from causalclip.predict.attention import class_attention
from causalclip.predict.explain import explain, last_layer, log_odds, relevance

# pairs from few images
ICM = ["TRAINER.CLIP_ICM.INTERVENTIONS", "BOTH", "TRAINER.CLIP_ICM.PROBE_TEXTS", "True"]


@pytest.fixture
def pictures(run, recorded):
    """Paths of test images."""
    return recorded(run("CDC"))["path"]


def test_of_a_linear_score_the_relevance_is_weight_times_value():
    layer, weight = torch.nn.Identity(), torch.tensor([[2.0, -1.0, 0.0]])
    values = torch.tensor([[3.0, 5.0, 7.0]])
    scores = {"one": lambda x: (weight * x).sum(), "two": lambda x: -4 * x[0, 2]}

    def run():
        x = layer(values)
        return {name: score(x) for name, score in scores.items()}

    with torch.no_grad():  # as the command runs
        found = relevance(layer, run)
    assert found["one"].tolist() == [[6.0, -5.0, 0.0]]
    assert found["two"].tolist() == [[0.0, 0.0, -28.0]]
    assert not layer._forward_hooks


def test_log_odds_of_a_softmax_are_a_logit_against_the_others():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    expected = 4 - np.logaddexp(1, 2)
    assert log_odds(Reading.of_logits(logits), 2).item() == pytest.approx(expected, rel=1e-5)


def test_certain_answers_still_have_a_gradient():
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)  # p rounds to 1
    log_odds(Reading.of_logits(logits), 0).backward()
    assert logits.grad.tolist() == [[pytest.approx(1), pytest.approx(-1)]]


def odds(predictor, images, label: int) -> float:
    """The log odds of a class, from the probabilities alone."""
    p = predictor.prediction(images).main.probabilities[0].double()
    return (p[label].log() - (p.sum() - p[label]).log()).item()


def test_of_a_layer_that_is_read_twice_the_first_time_counts():
    layer, values = torch.nn.Identity(), torch.tensor([2.0, 3.0])
    found = relevance(layer, lambda: {"one": layer(values).sum() + 9 * layer(values[:1]).sum()})
    assert found["one"].tolist() == [2.0, 3.0]


# MMRL's tokens stand between the class token and the patches.
@pytest.mark.parametrize("method", ["CDC", "CoOp", "CLIP_ICM", "MMRL"])
def test_a_map_says_how_the_odds_change_with_each_patch(method, run, pictures):
    predictor = Predictor.load(run(method, *(ICM if method == "CLIP_ICM" else [])))
    explanation = explain(predictor, pictures[0])
    name = "after the projection" if method == "CLIP_ICM" else "answer"
    found = explanation.maps[name]
    images = predictor.trainer.encoder.transform(Image.open(pictures[0]).convert("RGB"))[None]
    layer, label = last_layer(predictor.trainer.clip), explanation.answer.label
    first = 1 + predictor.trainer.settings.N_REP_TOKENS if method == "MMRL" else 1

    def with_patch(index: int, factor: float) -> float:
        def scale(_module, _inputs, output):
            if output.shape[1] < first + found.size:  # prompts alone, which are replaced
                return output
            changed = output.clone()
            changed[:, first + index] *= factor
            return changed

        handle = layer.register_forward_hook(scale)
        try:
            return odds(predictor, images, label)
        finally:
            handle.remove()

    step = 0.05
    numeric = [
        (with_patch(i, 1 + step) - with_patch(i, 1 - step)) / (2 * step) for i in range(found.size)
    ]
    np.testing.assert_allclose(found.ravel(), numeric, rtol=0.05, atol=0.02 * np.abs(found).max())
    # and, beyond the first order, what covering a patch costs has the sign of the map
    covered = [odds(predictor, images, label) - with_patch(i, 0.0) for i in range(found.size)]
    assert np.corrcoef(found.ravel(), covered)[0, 1] > 0.7


def test_each_reading_has_its_map(run, pictures):
    explanation = explain(Predictor.load(run("CDC")), pictures[0])
    templates = [f"template {m}" for m in range(1, 5)]
    assert list(explanation.maps) == ["answer", *templates]
    assert all(values.shape == (4, 4) for values in explanation.maps.values())
    assert explanation.picture.shape == (32, 32, 3)
    assert not np.allclose(explanation.maps["template 1"], explanation.maps["template 2"])
    icm = Predictor.load(run("CLIP_ICM", *ICM))
    maps = explain(icm, pictures[0]).maps
    assert list(maps) == ["before the projection", "after the projection"]


def test_the_picture_is_the_one_that_went_in(run, pictures):
    explanation = explain(Predictor.load(run("CoOp")), pictures[0])
    pixels = np.asarray(Image.open(pictures[0]).convert("RGB")) / 255  # 32 x 32 already
    np.testing.assert_allclose(explanation.picture, pixels, atol=1e-5)


def test_the_command_writes_a_png(run, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert explain_command.main([str(run("CDC")), pictures[0], "--class", "two"]) == 0
    said = capsys.readouterr().out
    path = said.split("what speaks for two: ")[1].strip()
    with Image.open(tmp_path / path) as png:
        assert png.format == "PNG" and png.width > 4 * png.height


def test_the_picture_lies_in_the_folder_of_its_run_and_says_what_it_shows(run, pictures):
    folder = run("CoOp")
    explain_command.main([str(folder), pictures[0], "--class", "two"])
    explain_command.main([str(folder), pictures[0], "--kind", "attention"])
    stem = Path(pictures[0]).stem
    paths = sorted((folder / "explained").glob("*.png"))
    assert [path.name for path in paths] == [f"{stem}.attention.png", f"{stem}.gradient.two.png"]
    said = [Image.open(path).info["Description"] for path in paths]
    assert said[0].startswith(f"{pictures[0]}: ") and "attention of the class token" in said[0]
    assert said[1].endswith("what speaks for two")


# Attention


def test_attention_of_the_class_token_is_the_softmax_of_its_scores():
    width, heads = 8, 2
    with torch.random.fork_rng(devices=[]):
        attn = torch.nn.MultiheadAttention(width, heads)
    tokens = torch.randn(3, 6, width, generator=torch.Generator().manual_seed(1))
    found = class_attention(attn, tokens)
    q, k, _ = F.linear(tokens, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)
    each = [
        (q[:, :1, part] @ k[..., part].mT / (width // heads) ** 0.5).softmax(-1)
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(found, torch.stack(each).mean(0)[:, 0])


def weights_inside(trainer, images) -> torch.Tensor:
    """(B, L, L), of CLIP's own forward: the last block's attention, asked for its weights."""
    attn = trainer.clip.visual.transformer.resblocks[-1].attn
    forward, seen = attn.forward, []

    def asked(*args, **options):
        output, weights = forward(*args, **{**options, "need_weights": True})
        seen.append(weights)
        return output, weights

    with patch.object(attn, "forward", asked), torch.no_grad():
        trainer.clip.encode_image(images)
    return seen[0]


def test_a_map_of_attention_is_what_clip_itself_attends_to(run, pictures):
    predictor = Predictor.load(run("CoOp"))
    explanation = explain(predictor, pictures[0], kind="attention")
    images = predictor.trainer.encoder.transform(Image.open(pictures[0]).convert("RGB"))[None]
    weights = weights_inside(predictor.trainer, images)[0, 0]
    (found,) = explanation.maps.values()
    np.testing.assert_allclose(found.ravel(), weights[1:].numpy(), rtol=1e-4)
    assert found.sum() + weights[0].item() == pytest.approx(1)
    assert list(explanation.maps) == ["class token"]


def test_each_set_of_prompts_has_its_attention(run, pictures):
    maps = explain(Predictor.load(run("CDC")), pictures[0], kind="attention").maps
    assert list(maps) == [f"template {m}" for m in range(1, 5)]
    assert all(values.shape == (4, 4) and 0 < values.sum() < 1 for values in maps.values())
    assert not np.allclose(maps["template 1"], maps["template 2"])


def test_attention_is_for_no_class_and_other_kinds_are_refused(run, pictures):
    predictor = Predictor.load(run("CoOp"))
    with pytest.raises(ValueError, match="the same for all classes, got the class 'two'"):
        explain(predictor, pictures[0], classname="two", kind="attention")
    with pytest.raises(ValueError, match="kind must be one of gradient, attention, got 'x'"):
        explain(predictor, pictures[0], kind="x")


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--class", "cat"], "class must be one of zero, one"), (["--classes", "a", "a"], "twice: a")],
)
def test_a_mistake_is_said_in_a_line(more, said, run, pictures, capsys):
    assert explain_command.main([str(run("CoOp")), pictures[0], *more]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("causalclip explain: error: ")
