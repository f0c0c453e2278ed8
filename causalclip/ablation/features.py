"""What the figures need of a run's features: the grid on its target, and points in the plane.

The run's own trainer gives them, so that they are the run's features, from the cache on disk.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from causalclip.ablation.icm_scores import HEADS
from causalclip.ablation.planning import configured
from causalclip.icm import options
from causalclip.icm.folds import pooled
from causalclip.icm.projection import InvariantProjection
from causalclip.icm.selection import Scored, told_right
from causalclip.runs.plan import Run
from causalclip.trainers.clip_icm import PROJECTION_FILES

if TYPE_CHECKING:
    from causalclip.trainers.clip_icm import CLIP_ICM

MOST_POINTS = 1000  # more would hide one another, and t-SNE slows down


def trainer_of(run: Run) -> CLIP_ICM:
    """The trainer that did a run, built again; it has nothing fitted."""
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    cfg = configured(run)
    cfg.freeze()
    with contextlib.redirect_stdout(io.StringIO()):
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)


def on_target(run: Run, head: str) -> list[Scored]:
    """The accuracy of every cell of a head's grid on the target that the run left out, per cent.

    Each cell's subspace is of all sources, as in the run; for the probe stands what does so in the
    choice.
    """
    trainer = trainer_of(run)
    settings = trainer.settings
    folds = options.folds_for(settings, head, trainer.sources.folds(trainer.captions()))
    classifier = options.classifier_for(settings, head, folds, trainer.text.cpu())
    features, labels = trainer.labelled(trainer.dm.dataset.test)
    moments = pooled(folds, text_weight=settings.TEXT_WEIGHT)
    search = options.search_of(settings, trainer.encoder.dim)
    asked = (features, labels, folds, moments, search.grid, classifier)
    cells = zip(search.grid, told_right(*asked, keep=search.keep), strict=True)
    return [Scored(choice, (100 * right.double().mean().item(),)) for choice, right in cells]


@dataclass(frozen=True)
class Points:
    """Images in the plane."""

    flat: Mapping[str, Mapping[str, np.ndarray]]
    """By method and by when: (N, 2)."""
    named: Mapping[str, np.ndarray]
    """What each image (N,) is called, by what it is coloured by."""


def embedded(run: Run, split: str) -> Points:
    """A run's images before and after its projections, in two dimensions each.

    A reading that keeps the plain features has no picture of its own, unless both do.
    """
    trainer = trainer_of(run)
    items = list(trainer.dm.dataset.val or trainer.dm.dataset.train_x)
    items += list(trainer.dm.dataset.test) if split == "test" else []
    rng = np.random.default_rng(trainer.cfg.SEED)
    items = [items[i] for i in sorted(rng.permutation(len(items))[:MOST_POINTS])]
    features = torch.from_numpy(trainer.features(items))
    after = {
        f"after, {name}": InvariantProjection.load(run.folder / PROJECTION_FILES[head])(features)
        for name, head in HEADS.items()
    }
    smaller = {when: x for when, x in after.items() if x.shape[1] < features.shape[1]}
    spaces = {"before": features, **(smaller or after)}
    domains = [*trainer.cfg.DATASET.SOURCE_DOMAINS, *trainer.cfg.DATASET.TARGET_DOMAINS]
    return Points(
        {
            "pca": {when: pca(x.numpy()) for when, x in spaces.items()},
            "tsne": {when: tsne(x.numpy(), trainer.cfg.SEED) for when, x in spaces.items()},
        },
        {
            "class": np.array([item.classname for item in items]),
            "domain": np.array([domains[item.domain] for item in items]),
        },
    )


def pca(x: np.ndarray) -> np.ndarray:
    """The two directions of most variance of unit-length features (N, D): (N, 2)."""
    from sklearn.decomposition import PCA

    return PCA(n_components=2, random_state=0).fit_transform(unit(x))


def tsne(x: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE of unit-length features (N, D): (N, 2)."""
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(x) - 1) / 3)
    return TSNE(perplexity=perplexity, random_state=seed).fit_transform(unit(x))


def unit(x: np.ndarray) -> np.ndarray:
    """Features (N, D) at length one: cosines are what is classified by."""
    return x / np.linalg.norm(x, axis=1, keepdims=True)
