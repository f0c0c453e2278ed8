"""The training images as the options ask for them: draws, pairs, folds and exact twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from causalclip.icm.groups import Sample
from causalclip.icm.interventions import sample_seed
from causalclip.icm.pairs import Draw, Drawn, Twins
from causalclip.icm.sources import Sources

D = 3
PATHS = [f"{i}.png" for i in range(6)]
OPTIONS = {
    "INTERVENTIONS": "IMAGE", "REMOVE_GAP": False, "KINDS": ["invert", "blur"], "STRENGTH": 1.0,
    "AGAINST": "image", "DRAWS": 2, "TWINS": False, "NORMALIZE": False,
}  # fmt: skip


def drawn(names) -> np.ndarray:
    rows = [np.random.default_rng(sample_seed(name, 0)).normal(size=D) for name in names]
    return np.stack(rows).astype("f4")


def encode_images(paths, change: Draw | None = None, *, desc: str = "") -> np.ndarray:
    return drawn(paths) if change is None else drawn([f"{path} {change.seed}" for path in paths])


def sources(twins=None, **options) -> Sources:
    return Sources(
        OPTIONS | options,
        [Sample(path, path, i % 2, i // 3) for i, path in enumerate(PATHS)],
        ["ink", "chalk"],
        ["cat", "dog"],
        encode_images=encode_images,
        encode_texts=lambda texts: torch.from_numpy(drawn(texts)),
        dim=D,
        seed=5,
        twins=twins,
    )


def test_draws_are_the_options_or_enough_for_the_width_and_twins_are_one():
    assert sources().draws == 2
    assert sources(DRAWS=0).draws == 2  # four pairs a dimension: 12 of 6 images
    assert sources(DRAWS=0, AGAINST="draws").draws == 3
    twins = sources({path: path for path in PATHS}, TWINS=True)
    assert twins.draws == 1 and isinstance(twins.pairs, Twins)
    assert isinstance(sources().pairs, Drawn)


def test_a_fold_is_a_domain_with_the_moments_of_its_own_pairs():
    ink, chalk = sources().folds()
    assert (ink.name, chalk.name) == ("ink", "chalk")
    for fold, paths in ((ink, PATHS[:3]), (chalk, PATHS[3:])):
        z = drawn(paths).astype("f8")
        d = np.concatenate([z - drawn([f"{path} {10 + i}" for path in paths]) for i in (0, 1)])
        np.testing.assert_allclose(fold.moments.changes, d.T @ d / 6, atol=1e-6)
        assert fold.texts is None and fold.moments.n_pairs == 6


@pytest.mark.parametrize("kind", ["TEXT", "BOTH", "CROSS", "FIGURE"])
def test_texts_stand_beside_the_images_or_in_their_place(kind):
    folds = sources(INTERVENTIONS=kind).folds()
    assert all(fold.texts is not None for fold in folds)
    assert all((fold.moments is None) == (kind in ("TEXT", "CROSS")) for fold in folds)


def test_exact_moments_are_of_all_images_with_their_twins_and_none_without():
    assert sources().exact_moments() is None
    exact = sources({path: f"twin of {path}" for path in PATHS}).exact_moments()
    d = drawn(PATHS).astype("f8") - drawn([f"twin of {path}" for path in PATHS])
    np.testing.assert_allclose(exact.changes, d.T @ d / 6, atol=1e-6)
