"""CLIP-ICM: classify in the subspace that interventions leave alone.

Song et al., "Learning Invariant Causal Mechanism from Vision-Language Models", ICML 2025,
arXiv 2405.15289. What neither the paper nor its code states is ours and marked so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from yacs.config import CfgNode

from causalclip.clip.injection import encode_text
from causalclip.clip.openai_clip import tokenize
from causalclip.clip.zeroshot import class_features
from causalclip.data.templates import dataset_template
from causalclip.engine.features import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.engine.settings import Flag, ListOf, Number, OneOf, Text, Whole
from causalclip.icm.captions import caption_pairs, load_captions, text_pairs
from causalclip.icm.comparison import compared, exact_moments
from causalclip.icm.fitted import Chosen, FittedICM, probes_of
from causalclip.icm.folds import Fold, fold_of, pooled
from causalclip.icm.groups import Group, Sample, grouped
from causalclip.icm.pairs import Drawn, Twins, draws_needed, text_moments
from causalclip.icm.projection import Estimator, Keep
from causalclip.icm.selection import (
    Choice,
    Classifier,
    RidgeClassifier,
    Scored,
    best,
    cells,
    leave_one_out,
    zeroshot_classifier,
)
from causalclip.icm.subspace import InterventionMoments

HEADS = ("zeroshot", "linear_probe")
PROJECTION_FILES = {
    "zeroshot": "projection.safetensors",  # what TRAINER.CDC.PROJECTION and its like can read
    "linear_probe": "projection_linear_probe.safetensors",
}
TEXTS_AT_ONCE = 256  # bounds the memory of encoding captions; no effect on the result
ESTIMATORS = OneOf(get_args(Estimator))
LAM, EPS, SHARE = Number(0), Number(0, open_low=True), Number(0, 1, open_low=True)


class CLIP_ICM(FeatureTrainer[FittedICM]):  # noqa: N801 (the registered name)
    """A_inv from interventional pairs, then zero-shot and linear probe on A_inv' z."""

    config_node = "CLIP_ICM"
    fit_class = FittedICM
    defaults = {
        "INTERVENTIONS": "IMAGE",  # IMAGE | TEXT | BOTH
        "TEXT_WEIGHT": 0.5,  # [ours] of the text pairs under BOTH
        "CAPTIONS": "",  # JSON of captions and rewrites; empty: a grid of classes and attributes
        "DRAWS": 0,  # interventions an image; 0: one, or more where images are few (PAIRS_A_DIM)
        "TWINS": False,  # exact interventional twins (CausalShapes) in place of interventions
        "SELECT": "lodo",  # lodo: on the source domains, from the grid; fixed: the next four
        "ESTIMATOR": "generalized",  # difference (the paper's figure) | generalized [ours]
        "LAM": 1.0,
        "EPS": 0.3,
        "DIM_INV": 0,
        "GRID_ESTIMATORS": ["difference", "generalized"],
        "GRID_LAMS": [0.1, 0.3, 1.0, 3.0],
        "GRID_EPS": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
        # Shares of the feature width; with 1 the plain features are among the choices.
        "GRID_DIMS": [0.125, 0.15625, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0],
        "KEEP": "invariant",  # invariant | reference: the published code's end of the spectrum
        "NORMALIZE": True,  # features before their moments are taken [ours; code: raw]
        "ORTHONORMAL": True,  # False: generalized eigenvectors scaled by the interventions
        "NORMALIZE_PROJECTED": True,  # cosine in the subspace [paper]; False: dot product [code]
        "HEAD": "zeroshot",  # zeroshot | linear_probe: whose reading the run is judged by
        "PROBE": True,  # fit the linear probes
        "C": 0.316,  # [code]
        "MAX_ITER": 1000,  # [code]
        "TEMPLATE": "",  # with one {}; empty takes the data set's published template
        "PREC": "fp32",
    }
    constraints = {
        "INTERVENTIONS": OneOf(("IMAGE", "TEXT", "BOTH")),
        "TEXT_WEIGHT": Number(0, 1, open_low=True, open_high=True),
        "CAPTIONS": Text(),
        "DRAWS": Whole(0, 10_000),
        "TWINS": Flag(),
        "SELECT": OneOf(("lodo", "fixed")),
        "ESTIMATOR": ESTIMATORS,
        "LAM": LAM,
        "EPS": EPS,
        "DIM_INV": Whole(0, 100_000),  # no tower is as wide; the backbone at hand decides
        "GRID_ESTIMATORS": ListOf(ESTIMATORS),
        "GRID_LAMS": ListOf(LAM, least=0),
        "GRID_EPS": ListOf(EPS, least=0),
        "GRID_DIMS": ListOf(SHARE),
        "KEEP": OneOf(get_args(Keep)),
        "NORMALIZE": Flag(),
        "ORTHONORMAL": Flag(),
        "NORMALIZE_PROJECTED": Flag(),
        "HEAD": OneOf(HEADS),
        "PROBE": Flag(),
        "C": Number(0, open_low=True),
        "MAX_ITER": Whole(1, 1_000_000),
    }

    def check_cfg(self, cfg: CfgNode) -> None:
        """As in CLIPTrainer, and what one setting asks of another.

        Raises:
            ValueError: names the key, what is allowed and what came.
        """
        super().check_cfg(cfg)
        settings = cfg.TRAINER.CLIP_ICM
        if settings.HEAD == "linear_probe" and not settings.PROBE:
            raise ValueError("TRAINER.CLIP_ICM.HEAD linear_probe needs PROBE True, got False")

    def build_method(self) -> None:
        """Encode the class names; refuse what the data or the backbone cannot give.

        Raises:
            ValueError: one class, DIM_INV beyond the backbone's width, too few pairs, or no twins.
        """
        super().build_method()
        if len(self.classnames) < 2:
            raise ValueError(f"CLIP_ICM needs two classes or more, got {self.classnames}")
        template = self.settings.TEMPLATE or dataset_template(self.cfg)
        self.text = class_features(self.clip, self.classnames, [template]).float()
        self._check_fixed_dimension()
        self._check_enough_pairs()
        if self.settings.TWINS and not hasattr(self.dm.dataset, "twins"):
            raise ValueError(
                f"TRAINER.CLIP_ICM.TWINS needs a data set with exact twins (CausalShapes), "
                f"{self.cfg.DATASET.NAME} has none"
            )

    def _check_fixed_dimension(self) -> None:
        settings, dim = self.settings, self.encoder.dim
        if settings.SELECT == "fixed" and not 1 <= settings.DIM_INV <= dim:
            raise ValueError(
                f"TRAINER.CLIP_ICM.DIM_INV must be in [1, {dim}], got {settings.DIM_INV}"
            )

    def _check_enough_pairs(self) -> None:
        settings, dim = self.settings, self.encoder.dim
        images, draws = len(self.dm.dataset.train_x), 1 if self.settings.TWINS else self.draws
        if settings.INTERVENTIONS == "IMAGE" and images * draws < dim:
            raise ValueError(
                f"{images} images and {draws} intervention{'s' * (draws > 1)} each give "
                f"{images * draws} pairs for {dim} dimensions, too few to tell which of them vary: "
                "use more images, TRAINER.CLIP_ICM.DRAWS 0, or INTERVENTIONS BOTH"
            )

    # Interventional pairs

    @property
    def draws(self) -> int:
        """Interventions an image."""
        return self.settings.DRAWS or draws_needed(len(self.dm.dataset.train_x), self.encoder.dim)

    @cached_property
    def groups(self) -> list[Group]:
        """The training images by what is held out together."""
        samples = [
            Sample(item.impath, self.encoder.key_of(item.impath), item.label, item.domain)
            for item in self.dm.dataset.train_x
        ]
        names = self.cfg.DATASET.SOURCE_DOMAINS
        return grouped(samples, domain_names=names, seed=self.cfg.SEED)

    @property
    def pairs(self) -> Drawn | Twins:
        """What interventions make of the images."""
        if self.settings.TWINS:
            return Twins(self.encoder.features, self.dm.dataset.twins)
        return Drawn(self.encoder.features, self.draws, self.cfg.SEED)

    def folds(self) -> list[Fold]:
        """One fold a source domain, or with a single one a fold a group of interventions."""
        images, normalize = self.settings.INTERVENTIONS != "TEXT", self.settings.NORMALIZE
        encode, pairs, texts = self.encoder.features, self.pairs, self.texts()
        return [
            fold_of(group, encode, pairs, images=images, texts=moments, normalize=normalize)
            for group, moments in zip(self.groups, texts, strict=True)
        ]

    def texts(self) -> list[InterventionMoments | None]:
        """Moments of each group's text pairs: its own images' captions, or about the classes."""
        if self.settings.INTERVENTIONS == "IMAGE":
            return [None] * len(self.groups)
        if not self.settings.CAPTIONS:
            return [self.text_moments(text_pairs(self.classnames))] * len(self.groups)
        dataset = self.dm.dataset
        items = (*dataset.train_x, *(dataset.val or []), *dataset.test)
        known = [self.encoder.key_of(item.impath) for item in items]
        captions = load_captions(self.settings.CAPTIONS, images=known)
        own = [group.captioned(captions) for group in self.groups]
        return [self.text_moments(caption_pairs(rows)) if rows else None for rows in own]

    def text_moments(self, pairs: Sequence[tuple[str, str]]) -> InterventionMoments:
        """Moments of caption pairs."""
        return text_moments(pairs, self.encode_captions, normalize=self.settings.NORMALIZE)

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Text features (N, D) of N captions in fp32, on the CPU."""
        features = []
        for start in range(0, len(captions), TEXTS_AT_ONCE):
            tokens = tokenize(captions[start : start + TEXTS_AT_ONCE], self.clip.context_length)
            with self.autocast():
                features.append(encode_text(self.clip, tokens.to(self.device)).float().cpu())
        return torch.cat(features)

    # The choice

    def fit(self) -> FittedICM:
        """Subspaces chosen on the source domains, written to files as well, and the probes.

        Raises:
            ValueError: features or captions that cannot be used; names them.
        """
        settings, folds = self.settings, self.folds()
        moments = pooled(folds, text_weight=settings.TEXT_WEIGHT)
        chosen = {head: self.choose(head, folds, moments) for head in self.heads}
        projections = {head: found.projection for head, found in chosen.items()}
        probes = {}
        if settings.PROBE:
            options = {"c": settings.C, "max_iter": settings.MAX_ITER}
            inside = projections["linear_probe"]
            probes = probes_of(folds, inside, len(self.classnames), **options)
        heads = {head: found.record() for head, found in chosen.items()}
        for head, twins in self.compared_with_twins(chosen).items():
            heads[head]["twins"] = twins
        names = [fold.name for fold in folds]
        facts = {"folds": names, "pairs": moments.n_pairs, "heads": heads}
        return FittedICM(projections, probes, facts)

    @property
    def heads(self) -> tuple[str, ...]:
        """The readings that are fitted."""
        return HEADS if self.settings.PROBE else HEADS[:1]

    def choose(self, head: str, folds: Sequence[Fold], moments: InterventionMoments) -> Chosen:
        """The subspace for a reading; also written into the output folder."""
        scored = [] if self.settings.SELECT == "fixed" else self.scored(head, folds)
        choice = best(scored).choice if scored else self.fixed_choice()
        found = Chosen(choice, choice.solve(moments, keep=self.settings.KEEP), scored)
        found.projection.save(Path(self.output_dir) / PROJECTION_FILES[head])
        print(f"Invariant subspace for {head}: {found}")
        return found

    def fixed_choice(self) -> Choice:
        """What the settings name, without a choice."""
        settings = self.settings
        strength = settings.LAM if settings.ESTIMATOR == "difference" else settings.EPS
        return Choice(settings.ESTIMATOR, strength, settings.DIM_INV, settings.ORTHONORMAL)

    def scored(self, head: str, folds: Sequence[Fold]) -> list[Scored]:
        """The grid with each cell's accuracy on the held-out folds."""
        keep, text_weight = self.settings.KEEP, self.settings.TEXT_WEIGHT
        classifier = self._classifier(head, folds)
        return leave_one_out(folds, self.grid(), classifier, keep=keep, text_weight=text_weight)

    def _classifier(self, head: str, folds: Sequence[Fold]) -> Classifier:
        if head == "linear_probe":
            return RidgeClassifier(folds, len(self.classnames))
        return zeroshot_classifier(self.text.cpu(), normalize=self.settings.NORMALIZE_PROJECTED)

    def grid(self) -> list[Choice]:
        """The cells to choose from."""
        settings = self.settings
        strengths = {"difference": settings.GRID_LAMS, "generalized": settings.GRID_EPS}
        strengths = {name: strengths[name] for name in settings.GRID_ESTIMATORS}
        orthonormal = settings.ORTHONORMAL
        return cells(strengths, settings.GRID_DIMS, self.encoder.dim, orthonormal=orthonormal)

    def compared_with_twins(self, chosen: Mapping[str, Chosen]) -> dict[str, dict[str, float]]:
        """How far each subspace is from what exact twins give, where the data set has them."""
        if not hasattr(self.dm.dataset, "twins"):
            return {}
        encode, dim, normalize = self.encoder.features, self.encoder.dim, self.settings.NORMALIZE
        twins = Twins(encode, self.dm.dataset.twins)
        exact = exact_moments(self.groups, encode, twins, dim=dim, normalize=normalize)
        if exact.n_pairs < dim:
            print(f"{exact.n_pairs} exact twins are too few to compare {dim} dimensions with")
            return {}
        return {head: compared(found, exact) for head, found in chosen.items()}

    # Prediction

    def check_fit(self) -> None:
        """A probe knows no other classes than its own; by their names all can be told.

        Raises:
            ValueError: other classes under HEAD linear_probe.
        """
        if self.settings.HEAD == "linear_probe":
            self.require_same_classes()

    def predict_features(self, features: Tensor) -> Prediction:
        """Zero-shot and, on the classes of the fit, probes: plain and in the subspace, (B, D)."""
        readings = self._zeroshot(features)
        if self.fitted.probes and self.fitted_classnames == self.classnames:
            readings |= self._probed(features)
        return Prediction(readings[f"{self.settings.HEAD}_icm"], readings)

    def _zeroshot(self, features: Tensor) -> dict[str, Reading]:
        inside = self.fitted.projections["zeroshot"].cosine_logits(
            features, self.text, self.logit_scale, normalize=self.settings.NORMALIZE_PROJECTED
        )
        return {
            "zeroshot": Reading.of_logits(self.classify(features, self.text)),
            "zeroshot_icm": Reading.of_logits(inside),
        }

    def _probed(self, features: Tensor) -> dict[str, Reading]:
        probes, inside = self.fitted.probes, self.fitted.projections["linear_probe"](features)
        return {
            "linear_probe": Reading.of_logits(probes["plain"].logits(features)),
            "linear_probe_icm": Reading.of_logits(probes["icm"].logits(inside)),
        }
