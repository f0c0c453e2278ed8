"""New classes: held-out classes against a loop, joined logits against Bayes, a planted world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from folding import fold_of

from causalclip.icm.config import ICMConfig
from causalclip.icm.fitted import joined_logits
from causalclip.icm.folds import Fold
from causalclip.icm.search import choose_subspace
from causalclip.icm.selection import zeroshot_classifier
from causalclip.icm.subspace import InterventionMoments

D, K, N = 8, 6, 30


def planted(seed: int, *, changed: int) -> tuple[list[Fold], torch.Tensor]:
    """Two groups of three classes, told by factors 0 to 4; the others hold large noise.

    Interventions redraw `changed` of the noise factors, in which the texts differ as well.
    """
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(K, D))
    folds = []
    for group in ((0, 2, 4), (1, 3, 5)):
        labels = np.repeat(group, N)
        z = text[labels] + 0.6 * rng.normal(size=(len(labels), D))
        z[:, 5:] = 3 * rng.normal(size=(len(labels), 3))
        redrawn = z.copy()
        redrawn[:, 5 : 5 + changed] = 3 * rng.normal(size=(len(labels), changed))
        folds.append(fold_of(str(group), z, redrawn, labels, normalize=False))
    return folds, torch.from_numpy(text).float()


CONFIG = ICMConfig(
    normalize=False, grid_estimators=("generalized",), grid_eps=(0.01,), grid_dims=(5 / 8, 1.0)
)


def test_held_out_classes_are_told_apart_among_themselves():
    (held, rest), text = planted(0, changed=3)
    projection = InterventionMoments(D, normalize=False).merge(rest.moments).solve(5, eps=0.1)
    found = zeroshot_classifier(text, new_only=True)(projection, [rest], held.features)
    inside, texts = held.features @ projection.basis.float(), text @ projection.basis.float()
    for row, answer in zip(inside, found, strict=True):
        cosines = {k: torch.cosine_similarity(row, texts[k], dim=0) for k in (0, 2, 4)}
        assert answer == max(cosines, key=lambda k: cosines[k])


def test_a_subspace_that_serves_held_out_classes_is_found_and_a_useless_one_is_not():
    folds, text = planted(0, changed=3)
    chosen = choose_subspace(CONFIG, "new_classes", folds, text, seed=0)
    assert chosen.choice.dim_inv == 5 and chosen.gain.points > 20
    still, text = planted(1, changed=1)
    # noise that no intervention moves, and a class that one moves
    chosen = choose_subspace(CONFIG, "new_classes", list(map(_class_moved, still)), text, seed=0)
    assert chosen.choice.dim_inv == D


def _class_moved(fold: Fold) -> Fold:
    moved = fold.features.clone()
    moved[:, :3] = moved[torch.randperm(len(moved), generator=torch.Generator().manual_seed(0)), :3]
    return fold_of(fold.name, fold.features, moved, fold.labels, normalize=False)


def test_chance_is_that_of_the_held_out_classes():
    folds, text = planted(0, changed=3)
    rng = np.random.default_rng(0)
    noise = [replace(fold, labels=fold.labels[rng.permutation(3 * N)]) for fold in folds]
    plain = choose_subspace(CONFIG, "new_classes", noise, text, seed=0)
    assert plain.choice.dim_inv == D
    above = float(plain.thin.split()[3]) - plain.scored[-1].mean
    assert above == pytest.approx(-100 / 3, abs=0.1)  # 6 classes, three of them held out


def test_too_few_classes_to_hold_two_out_keep_the_plain_features():
    folds, text = planted(0, changed=3)
    assert [ICMConfig().n_class_groups(n) for n in (2, 3, 4, 9, 10, 100)] == [1, 1, 2, 4, 5, 5]
    chosen = choose_subspace(CONFIG, "new_classes", folds[:1], text[:3], seed=0)
    assert chosen.choice.dim_inv == D
    assert "3 classes, fewer than two to hold out and two to keep" in chosen.lines()[-1]


def test_joined_logits_are_the_chain_rule():
    generator = torch.Generator().manual_seed(0)
    plain, known, new = torch.randn(3, 7, 5, generator=generator, dtype=torch.float64)
    is_new = torch.tensor([False, True, False, True, True])
    joined = joined_logits(plain, known, new, is_new).exp()
    torch.testing.assert_close(joined.sum(-1), torch.ones(7, dtype=torch.float64))
    for row in range(7):
        p = plain[row].exp() / plain[row].exp().sum()
        for k in range(5):
            group = is_new == is_new[k]
            inside = (new if is_new[k] else known)[row].exp()
            expected = p[group].sum() * inside[k] / inside[group].sum()
            assert joined[row, k].item() == pytest.approx(expected.item())
    for logits, mask in ((known, torch.zeros(5)), (new, torch.ones(5))):
        alone = joined_logits(plain, known, new, mask.bool())
        torch.testing.assert_close(alone, logits.log_softmax(-1))
