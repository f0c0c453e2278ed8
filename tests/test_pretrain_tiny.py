"""Pre-training: captions are true, the loss ignores false negatives, runs resume bit for bit."""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from causalclip.clip.backbone import BUNDLED_CLIPS, load_clip
from causalclip.clip.interface import tokenize
from causalclip.clip.weights import weights_digest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def P():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)  # as Python does for a script
        importlib.import_module("pretrain_tiny")  # the command finds all that it is made of
        return importlib.import_module("tiny_training")


@pytest.fixture(scope="module")
def cards(P):
    return importlib.import_module("tiny_card")


@pytest.fixture(scope="module")
def recipe(P):
    return P.Recipe(steps=4, batch=16, pool=3, warmup=2, width=64, layers=2, embed_dim=16)


@pytest.fixture(scope="module")
def pool(P, recipe):
    return P.render_pool(recipe)


@pytest.fixture(scope="module")
def numbers(P, pool):
    return torch.tensor([P.world.encode_factors(factors) for factors in pool.factors])


def trained(P, recipe, pool, numbers, steps):
    run = P.start(recipe)
    losses = [P.train_step(run, pool, numbers) for _ in range(steps)]
    return run, losses


def test_the_recipe_recreates_the_weights(P, recipe, pool, numbers):
    first, losses = trained(P, recipe, pool, numbers, 3)
    torch.rand(5)  # whatever else draws numbers in between
    again, same = trained(P, recipe, P.render_pool(recipe), numbers, 3)
    assert losses == same
    assert weights_digest(first.model) == weights_digest(again.model)


def test_an_interrupted_run_continues_bit_for_bit(P, recipe, pool, numbers, tmp_path):
    whole, losses = trained(P, recipe, pool, numbers, 4)
    half, _ = trained(P, recipe, pool, numbers, 2)
    P.save(half, tmp_path / "state.pt")
    rest = P.start(recipe)
    P.resume(rest, tmp_path / "state.pt")
    assert [P.train_step(rest, pool, numbers) for _ in range(2)] == losses[2:]
    assert weights_digest(rest.model) == weights_digest(whole.model)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_another_recipe_is_not_resumed(P, recipe, pool, numbers, tmp_path):
    run, _ = trained(P, recipe, pool, numbers, 1)
    P.save(run, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="must be of the recipe .*'steps': 9"):
        P.resume(P.start(replace(recipe, steps=9)), tmp_path / "state.pt")


def test_training_lowers_the_loss(P, recipe, pool, numbers):
    _, losses = trained(P, replace(recipe, steps=60, lr=2e-3), pool, numbers, 60)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


def test_the_written_model_is_the_trained_one_and_has_a_card(
    P, cards, recipe, pool, numbers, tmp_path
):
    run, _ = trained(P, recipe, pool, numbers, 2)
    path = tmp_path / "small.safetensors"
    cards.write_files(run, path, {"test, 10 classes": 12.3})
    assert weights_digest(load_clip(str(path))) == weights_digest(P.whole_vocabulary(run))
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "| test, 10 classes | 12.3 |" in card and "{" not in card.split("```json")[0]
    assert weights_digest(load_clip(str(path))) in card


def test_every_caption_is_in_the_vocabulary_and_true_of_its_picture(P, pool, numbers):
    rng = np.random.default_rng(0)
    known = set(tokenize(P.world.all_captions()).unique().tolist())
    for i, factors in enumerate(pool.factors):
        for _ in range(30):
            text, told = P.world.caption(factors, rng)
            assert set(tokenize(text).unique().tolist()) <= known
            row = torch.tensor([P.world.encode_factors(told)])
            assert P.world.compatible(numbers[i : i + 1], row).all()
            if "class" in told:
                assert factors["class"] in text
            if "colour" in told:
                assert factors["colour"] in text


def test_compatible_is_the_slow_rule(P, pool, numbers):
    rng = np.random.default_rng(1)
    told = [P.world.caption(factors, rng)[1] for factors in pool.factors[::2]]
    fast = P.world.compatible(numbers, torch.tensor([P.world.encode_factors(t) for t in told]))

    def merged(factors):
        return {k: v.replace("neon shape", "neon") for k, v in factors.items()}

    for i, factors in enumerate(pool.factors):
        for j, caption in enumerate(told):
            assert fast[i, j] == (merged(caption).items() <= merged(factors).items())


def test_the_loss_is_clips_when_no_caption_fits_another_picture(P):
    torch.manual_seed(0)
    images, texts = torch.randn(5, 8), torch.randn(5, 8)
    own = torch.arange(5)
    loss = P.contrastive_loss(images, texts, own, torch.tensor(7.0), torch.eye(5).bool())
    unit = [x / x.norm(dim=1, keepdim=True) for x in (images, texts)]
    p = 7.0 * unit[0] @ unit[1].T
    expected = -(p.log_softmax(1).diagonal().mean() + p.log_softmax(0).diagonal().mean()) / 2
    assert torch.allclose(loss, expected)


def test_a_caption_that_fits_another_picture_is_not_its_negative(P):
    torch.manual_seed(0)
    images, texts = torch.randn(3, 8), torch.randn(3, 8)
    true = torch.eye(3).bool()
    true[0, 1] = True  # caption 1 is also true of picture 0
    scale = torch.tensor(5.0)

    def loss(texts):
        return P.contrastive_loss(images[:1], texts, torch.tensor([0]), scale, true[:1])

    moved = texts.clone()
    moved[1] = images[0]
    assert torch.equal(loss(texts), loss(moved))
    moved = texts.clone()
    moved[2] = images[0]
    assert loss(moved) > loss(texts)


def test_shifting_moves_each_picture_and_keeps_the_coverage_with_it(P):
    pictures = np.zeros((6, 32, 32, 4), np.uint8)
    pictures[:, 10, 12] = 255
    moved = P.shift(pictures, np.random.default_rng(0))
    where = [tuple(np.argwhere(m[..., 0])[0]) for m in moved]
    assert all(abs(r - 10) <= 2 and abs(c - 12) <= 2 for r, c in where) and len(set(where)) > 1
    assert np.array_equal(moved[..., 0], moved[..., 3])


def test_confounded_shares_follow_the_lists(P):
    shares, lists = P.world.DIGITS["tiny"].looks, P.world.DIGITS["tiny"].only
    of_two = P.world._confounded(shares, lists, 2)  # not among the neon digits
    assert of_two["neon"] == pytest.approx(P.world.LOOK_LEAK * shares["neon"])
    assert of_two["ink"] == shares["ink"]
    assert P.world._confounded(shares, lists, 8)["neon"] == shares["neon"]


@pytest.mark.parametrize("digit", [2, 5])
def test_colour_goes_with_parity_in_the_coloured_world_and_is_told(P, digit):
    world = P.world
    coloured = world.DIGITS["tiny-coloured"]
    told = [world.draw_digit(digit, np.random.default_rng(s), coloured)[2] for s in range(400)]
    grey = [factors for factors in told if factors["manner"] in ("scan", "negative")]
    assert grey and not any("colour" in factors for factors in grey)
    colours = [factors["colour"] for factors in told if factors not in grey]
    own = np.mean([colour in (world.COLD if digit % 2 else world.WARM) for colour in colours])
    share = 0.9 + 0.1 / 2  # any of eight colours is one of the own four half of the time
    assert own == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(colours)))


def test_the_looks_keep_their_own_colours_in_the_other_world(P):
    tiny = P.world.DIGITS["tiny"]
    told = [P.world.draw_digit(3, np.random.default_rng(s), tiny)[2] for s in range(9)]
    assert not any("colour" in factors for factors in told)


def test_each_bundled_clip_has_its_digits_and_says_so_in_its_card(P, cards):
    assert set(P.world.DIGITS) == set(BUNDLED_CLIPS)
    for name, digits in P.world.DIGITS.items():
        card = BUNDLED_CLIPS[name].with_suffix(".md").read_text(encoding="utf-8")
        assert cards.digit_confounder(digits) in card
        assert card.startswith(f"# {name}\n")


def test_the_learning_rate_warms_up_and_ends_near_zero(P, recipe):
    rates = [P.learning_rate(replace(recipe, steps=100, warmup=10), s) for s in range(100)]
    assert rates[:10] == pytest.approx([recipe.lr * (s + 1) / 10 for s in range(10)])
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 1e-3 * recipe.lr
