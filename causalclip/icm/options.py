"""CLIP-ICM's options by their names in the settings: what they ask of each other, and make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from causalclip.icm.certainty import bootstrap, check_images
from causalclip.icm.fitted import Chosen
from causalclip.icm.folds import Fold
from causalclip.icm.pairs import pairs_an_image
from causalclip.icm.search import Found, Search
from causalclip.icm.selection import (
    Choice,
    Classifier,
    LogisticClassifier,
    RidgeClassifier,
    cells,
    zeroshot_classifier,
)
from causalclip.icm.subspace import InterventionMoments

HEADS = ("zeroshot", "linear_probe")
INTERVENTIONS = ("IMAGE", "TEXT", "BOTH", "CROSS", "FIGURE")
"""Pairs of images, of captions, of both kinds; of an image and its rewritten caption, and these
together with pairs of images, as in the published figure."""
TEXTS_ONLY = ("TEXT", "CROSS")  # no pair of two images
CROSSED = ("CROSS", "FIGURE")  # pairs of an image and a text


def check_together(options: Mapping[str, Any], *, where: str) -> None:
    """Refuse options that exclude each other.

    Args:
        options: by their names in the settings.
        where: what the names stand below, for the message.

    Raises:
        ValueError: names the key, what it needs and what came.
    """
    kind, draws, twins = (options[key] for key in ("INTERVENTIONS", "DRAWS", "TWINS"))
    if options["HEAD"] == "linear_probe" and not options["PROBE"]:
        raise ValueError(f"{where}.HEAD linear_probe needs PROBE True, got False")
    if options["REMOVE_GAP"] and kind not in CROSSED:
        raise ValueError(f"{where}.REMOVE_GAP needs INTERVENTIONS CROSS or FIGURE, got {kind}")
    if options["AGAINST"] == "draws" and (draws == 1 or twins):
        raise ValueError(
            f"{where}.AGAINST draws needs DRAWS 0 or above 1 and TWINS False, got {draws}, {twins}"
        )
    if options["BOOTSTRAP"] and kind in TEXTS_ONLY:
        raise ValueError(
            f"{where}.BOOTSTRAP needs image pairs (IMAGE, BOTH, FIGURE), got INTERVENTIONS {kind}"
        )


def check_data(options: Mapping[str, Any], images: int, draws: int, dim: int) -> None:
    """Refuse what so many images, with so many draws each, or D = `dim` features cannot give.

    Raises:
        ValueError: a fixed DIM_INV outside [1, D], fewer image pairs than dimensions, or a
            bootstrap of too few images.
    """
    chosen = options["DIM_INV"]
    if options["SELECT"] == "fixed" and not 1 <= chosen <= dim:
        raise ValueError(f"TRAINER.CLIP_ICM.DIM_INV must be in [1, {dim}], got {chosen}")
    pairs = images * pairs_an_image(draws, options["AGAINST"])
    kind = options["INTERVENTIONS"]
    alone = kind == "IMAGE" or (
        options["PROBE"] and not options["PROBE_TEXTS"] and kind not in TEXTS_ONLY
    )
    if alone and pairs < dim:
        raise ValueError(
            f"{images} images and {draws} intervention{'s' * (draws > 1)} each give "
            f"{pairs} pairs for {dim} dimensions, too few to tell which of them vary: "
            "use more images, TRAINER.CLIP_ICM.DRAWS 0, or INTERVENTIONS BOTH and PROBE_TEXTS True"
        )
    if options["BOOTSTRAP"]:
        check_images(images)


def folds_for(options: Mapping[str, Any], head: str, folds: Sequence[Fold]) -> Sequence[Fold]:
    """The folds with those pairs that a reading's subspace is taken of.

    Without PROBE_TEXTS the probe's is taken of pairs of images alone, where there are some.
    """
    if head == "zeroshot" or options["PROBE_TEXTS"] or options["INTERVENTIONS"] in TEXTS_ONLY:
        return folds
    return [replace(fold, texts=None) for fold in folds]


def subspace_for(
    options: Mapping[str, Any],
    head: str,
    folds: Sequence[Fold],
    moments: InterventionMoments,
    text: Tensor,
    *,
    seed: int,
) -> Chosen:
    """The subspace for a reading, and how certain it is where BOOTSTRAP asks.

    Args:
        options: by their names in the settings.
        head: one of `HEADS`.
        folds: what is held out in turn.
        moments: of all folds together, which the subspace is taken of.
        text: text features (K, D) of the classes.
        seed: of the resamples.

    Raises:
        ValueError: fewer than two folds, where there is something to choose.
    """
    found = cell_for(options, head, folds, text)
    solve, certainty = partial(found.choice.solve, keep=options["KEEP"]), None
    if options["BOOTSTRAP"]:
        how = {"text_weight": options["TEXT_WEIGHT"], "n": options["BOOTSTRAP"]}
        certainty = bootstrap(folds, solve, seed=seed, **how)
    return Chosen(found.choice, solve(moments), found.scored, found.gain, certainty)


def cell_for(options: Mapping[str, Any], head: str, folds: Sequence[Fold], text: Tensor) -> Found:
    """The cell that a reading takes: the options', or the sources' choice, texts being (K, D)."""
    if options["SELECT"] == "fixed":
        return Found(fixed_choice(options))
    search = search_of(options, text.shape[1])
    classifier = classifier_for(options, head, folds, text)
    stands_in = isinstance(classifier, RidgeClassifier)
    return search(folds, classifier, judge=probe_of(options, text) if stands_in else None)


def classifier_for(
    options: Mapping[str, Any], head: str, folds: Sequence[Fold], text: Tensor
) -> Classifier:
    """What a reading's cells are scored by, texts being (K, D): for the probe what stands in."""
    if head == "zeroshot":
        return zeroshot_classifier(text, normalize=options["NORMALIZE_PROJECTED"])
    if options["SELECT_PROBE"] == "logistic":
        return probe_of(options, text)
    return RidgeClassifier(folds, len(text))


def probe_of(options: Mapping[str, Any], text: Tensor) -> LogisticClassifier:
    """The linear probe itself, of as many classes as there are texts (K, D)."""
    return LogisticClassifier(len(text), options["C"], options["MAX_ITER"])


def fixed_choice(options: Mapping[str, Any]) -> Choice:
    """The cell that the options name, without a choice."""
    estimator = options["ESTIMATOR"]
    strength = options["LAM"] if estimator == "difference" else options["EPS"]
    return Choice(estimator, strength, options["DIM_INV"], options["ORTHONORMAL"])


def search_of(options: Mapping[str, Any], dim: int) -> Search:
    """The cells to choose from among D = `dim` dimensions, and how one is taken."""
    strengths = {"difference": options["GRID_LAMS"], "generalized": options["GRID_EPS"]}
    strengths = {name: strengths[name] for name in options["GRID_ESTIMATORS"]}
    return Search(
        cells(strengths, options["GRID_DIMS"], dim, orthonormal=options["ORTHONORMAL"]),
        dim,
        keep=options["KEEP"],
        text_weight=options["TEXT_WEIGHT"],
        rule=options["RULE"],
        margin=options["SELECT_MARGIN"],
    )
