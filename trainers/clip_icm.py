"""CLIP-ICM: classify in the subspace that interventions leave alone.

Song et al., "Learning Invariant Causal Mechanism from Vision-Language Models", ICML 2025,
arXiv 2405.15289. What neither the paper nor its code states is ours and marked so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from scipy.linalg import subspace_angles
from torch import Tensor
from yacs.config import CfgNode

from causalclip.clip.backbone import tokenize
from causalclip.clip.injection import encode_text
from causalclip.clip.templates import template_for
from causalclip.clip.zeroshot import class_features, cosine_logits
from causalclip.engine.feature_cache import batches
from causalclip.engine.features import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.icm.interventions import (
    ImageIntervention,
    caption_pairs,
    load_captions,
    sample_seed,
    text_pairs,
)
from causalclip.icm.probe import Probe, fit_probe
from causalclip.icm.selection import (
    Choice,
    Classifier,
    Fold,
    RidgeClassifier,
    Scored,
    best,
    leave_one_out,
    pooled,
    zeroshot_classifier,
)
from causalclip.icm.subspace import (
    Estimator,
    InterventionMoments,
    InvariantProjection,
    ProjectionSettings,
)

PAIRS_A_DIM = 4  # [ours] what DRAWS 0 asks for; the sources without one need at least one a dim
GRIDS = {"LAM": "GRID_LAMS", "EPS": "GRID_EPS"}
HEADS = ("zeroshot", "linear_probe")
PROJECTION_FILES = {
    "zeroshot": "projection.safetensors",  # what TRAINER.CDC.PROJECTION and its like can read
    "linear_probe": "projection_linear_probe.safetensors",
}
TENSORS = ("basis", "spectrum", "intervention_energy", "feature_energy")

# With a single source domain, kinds of intervention take the part of domains: each group is held
# out in turn. A group changes any picture: not only colours of a grey one.
KIND_GROUPS = (("jitter", "grayscale"), ("blur", "posterize"), ("invert", "solarize", "equalize"))


@dataclass(frozen=True)
class Draw:
    """One intervention an image, from the image's own seed: the same for any number of workers."""

    intervention: ImageIntervention
    seed: int

    def __call__(self, image: Image.Image, key: str) -> Image.Image:
        return self.intervention(image, sample_seed(key, self.seed))


@dataclass(frozen=True)
class Group:
    """Training images that are held out together."""

    name: str
    items: Sequence
    intervention: ImageIntervention
    held_changed: bool
    """Classify the changed pictures when held out, instead of the pictures as they are."""


class CLIP_ICM(FeatureTrainer):
    """A_inv from interventional pairs, then zero-shot and linear probe on A_inv' z."""

    config_node = "CLIP_ICM"
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

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        settings = cfg.TRAINER.CLIP_ICM
        for key, allowed in (
            ("INTERVENTIONS", ("IMAGE", "TEXT", "BOTH")),
            ("SELECT", ("lodo", "fixed")),
            ("KEEP", ("invariant", "reference")),
            ("HEAD", HEADS),
        ):
            if settings[key] not in allowed:
                raise ValueError(
                    f"TRAINER.CLIP_ICM.{key} must be one of {', '.join(allowed)}, "
                    f"got {settings[key]!r}"
                )
        for name in (settings.ESTIMATOR, *settings.GRID_ESTIMATORS):
            if name not in get_args(Estimator):
                raise ValueError(
                    "TRAINER.CLIP_ICM.ESTIMATOR and GRID_ESTIMATORS must be among "
                    f"{', '.join(get_args(Estimator))}, got {name!r}"
                )
        if settings.DRAWS < 0:
            raise ValueError(f"TRAINER.CLIP_ICM.DRAWS must be 0 or more, got {settings.DRAWS}")
        if not 0 < settings.TEXT_WEIGHT < 1:
            raise ValueError(
                f"TRAINER.CLIP_ICM.TEXT_WEIGHT must be in (0, 1), got {settings.TEXT_WEIGHT}"
            )
        for key in ("LAM", "EPS"):
            for value in (settings[key], *settings[GRIDS[key]]):
                if value < 0 or (key == "EPS" and value == 0):
                    least = "a positive number" if key == "EPS" else "0 or more"
                    raise ValueError(f"TRAINER.CLIP_ICM.{key} must be {least}, got {value}")
        if settings.HEAD == "linear_probe" and not settings.PROBE:
            raise ValueError("TRAINER.CLIP_ICM.HEAD linear_probe needs PROBE True, got False")
        if not settings.GRID_DIMS or not all(0 < share <= 1 for share in settings.GRID_DIMS):
            raise ValueError(
                "TRAINER.CLIP_ICM.GRID_DIMS must be shares of the feature width in (0, 1], "
                f"got {settings.GRID_DIMS}"
            )

    def build_method(self) -> None:
        super().build_method()
        self.text = self._class_text()
        if len(self.classnames) < 2:
            raise ValueError(f"CLIP_ICM needs two classes or more, got {self.classnames}")
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

    @torch.no_grad()
    def _class_text(self) -> Tensor:
        template = self.settings.TEMPLATE or template_for(self.cfg.DATASET.NAME)
        return class_features(self.clip, self.classnames, [template]).float()

    # -- interventional pairs ------------------------------------------------------------------

    def folds(self) -> list[Fold]:
        """One fold a source domain, or with a single one a fold a group of interventions."""
        self._shared_texts = None
        if self.settings.INTERVENTIONS != "IMAGE" and not self.settings.CAPTIONS:
            self._shared_texts = self.text_moments(text_pairs(self.classnames))
        return [self._fold(group) for group in self._groups()]

    def _groups(self) -> list[Group]:
        by_domain: dict[int, list] = {}
        for item in self.dm.dataset.train_x:
            by_domain.setdefault(item.domain, []).append(item)
        if len(by_domain) > 1:
            return [
                Group(self._domain_name(number), items, ImageIntervention(), held_changed=False)
                for number, items in sorted(by_domain.items())
            ]
        return self._kind_groups()

    def _domain_name(self, number: int) -> str:
        sources = self.cfg.DATASET.SOURCE_DOMAINS
        return sources[number] if number < len(sources) else f"domain {number}"

    def _kind_groups(self) -> list[Group]:
        keyed = {self.encoder.key_of(item.impath): item for item in self.dm.dataset.train_x}
        # Dealt out in the order of a hash: parts of one size, whatever the order of the list.
        dealt = sorted(keyed, key=lambda key: sample_seed(key, self.cfg.SEED))
        n = len(KIND_GROUPS)
        parts = [[keyed[key] for key in dealt[i::n]] for i in range(n)]
        return [
            Group("+".join(kinds), part, ImageIntervention(kinds=kinds), held_changed=True)
            for kinds, part in zip(KIND_GROUPS, parts, strict=True)
            if part
        ]

    def _fold(self, group: Group) -> Fold:
        features = self.features(group.items, desc=group.name)
        changed = self._changed(group)
        labels = torch.tensor([item.label for item in group.items])
        held = torch.from_numpy(changed[0] if group.held_changed else features)
        images = None
        if self.settings.INTERVENTIONS != "TEXT":
            images = self._moments(features, changed, [item.impath for item in group.items])
        texts = self._texts(group) if self.settings.INTERVENTIONS != "IMAGE" else None
        return Fold(
            group.name,
            moments=images,
            texts=texts,
            features=torch.from_numpy(features),
            labels=labels,
            held_features=held,
            held_labels=labels,
        )

    def _changed(self, group: Group) -> list[np.ndarray]:
        """The features of each item's twins, one array (N, D) a draw."""
        if self.settings.TWINS:
            return [self._twin_features(group)]
        first = self.cfg.SEED * self.draws
        return [
            self.features(
                group.items, Draw(group.intervention, first + i), desc=f"{group.name}, intervened"
            )
            for i in range(self.draws)
        ]

    @property
    def draws(self) -> int:
        """Interventions an image."""
        needed = math.ceil(PAIRS_A_DIM * self.encoder.dim / len(self.dm.dataset.train_x))
        return self.settings.DRAWS or needed

    def _twin_features(self, group: Group) -> np.ndarray:
        twins = self.dm.dataset.twins
        paths = [twins[item.impath] for item in group.items]
        return self.encoder.features(paths, desc=f"{group.name}, twins")

    def _moments(
        self, features: np.ndarray, changed: Sequence[np.ndarray], names: Sequence[str]
    ) -> InterventionMoments:
        moments = InterventionMoments(self.encoder.dim, normalize=self.settings.NORMALIZE)
        for array in changed:
            start = 0
            for z, z_do in zip(batches(features), batches(array), strict=True):
                moments.update(z, z_do, names=names[start : start + len(z)])
                start += len(z)
        return moments

    def _texts(self, group: Group) -> InterventionMoments | None:
        """The group's text pairs: of its own images' captions, or those about the classes."""
        if not self.settings.CAPTIONS:
            return self._shared_texts
        dataset = self.dm.dataset
        known = [
            self.encoder.key_of(item.impath)
            for item in (*dataset.train_x, *(dataset.val or []), *dataset.test)
        ]
        own = {self.encoder.key_of(item.impath) for item in group.items}
        captions = load_captions(self.settings.CAPTIONS, images=known)
        pairs = caption_pairs(caption for caption in captions if caption.image in own)
        return self.text_moments(pairs) if pairs else None

    @torch.no_grad()
    def text_moments(self, pairs: Sequence[tuple[str, str]]) -> InterventionMoments:
        """Moments of caption pairs; each caption is encoded once."""
        captions = sorted({caption for pair in pairs for caption in pair})
        place = {caption: i for i, caption in enumerate(captions)}
        features = torch.cat(list(self._encoded(captions)))
        before, after = (torch.tensor([place[pair[side]] for pair in pairs]) for side in (0, 1))
        moments = InterventionMoments(self.encoder.dim, normalize=self.settings.NORMALIZE)
        for b, a in zip(before.split(4096), after.split(4096), strict=True):
            moments.update(features[b], features[a], names=[captions[i] for i in b])
        return moments

    def _encoded(self, captions: Sequence[str], at_once: int = 256) -> Iterator[Tensor]:
        for start in range(0, len(captions), at_once):
            tokens = tokenize(captions[start : start + at_once], self.clip.context_length)
            with self.autocast():
                yield encode_text(self.clip, tokens.to(self.device)).float().cpu()

    # -- the choice ----------------------------------------------------------------------------

    def fixed_choice(self) -> Choice:
        """What the settings name, without a choice."""
        settings = self.settings
        strength = settings.LAM if settings.ESTIMATOR == "difference" else settings.EPS
        return Choice(settings.ESTIMATOR, strength, settings.DIM_INV, settings.ORTHONORMAL)

    def grid(self) -> list[Choice]:
        """The cells to choose from."""
        settings, dim = self.settings, self.encoder.dim
        strengths = {"difference": settings.GRID_LAMS, "generalized": settings.GRID_EPS}
        dims = sorted({max(1, round(share * dim)) for share in settings.GRID_DIMS})
        return [
            Choice(estimator, strength, k, settings.ORTHONORMAL)
            for estimator in settings.GRID_ESTIMATORS
            for strength in strengths[estimator]
            for k in dims
        ]

    def scored(self, head: str, folds: Sequence[Fold]) -> list[Scored]:
        """The grid with each cell's accuracy on the held-out folds; nothing where it is fixed."""
        if self.settings.SELECT == "fixed":
            return []
        return leave_one_out(
            folds,
            self.grid(),
            self._classifier(head, folds),
            keep=self.settings.KEEP,
            text_weight=self.settings.TEXT_WEIGHT,
        )

    def _classifier(self, head: str, folds: Sequence[Fold]) -> Classifier:
        if head == "linear_probe":
            return RidgeClassifier(folds, len(self.classnames))
        return zeroshot_classifier(self.text.cpu(), normalize=self.settings.NORMALIZE_PROJECTED)

    @property
    def heads(self) -> tuple[str, ...]:
        """The readings that are fitted."""
        return HEADS if self.settings.PROBE else HEADS[:1]

    def fit(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        folds = self.folds()
        moments = pooled(folds, text_weight=self.settings.TEXT_WEIGHT)
        details: dict[str, Any] = {
            "folds": [fold.name for fold in folds],
            "pairs": moments.n_pairs,
            "heads": {},
        }
        numbers: dict[str, Tensor] = {}
        for head in self.heads:
            scored = self.scored(head, folds)
            choice = best(scored).choice if scored else self.fixed_choice()
            projection = choice.solve(moments, keep=self.settings.KEEP)
            numbers.update({f"{head}_{name}": getattr(projection, name) for name in TENSORS})
            details["heads"][head] = self._described(choice, scored, projection)
            projection.save(Path(self.output_dir) / PROJECTION_FILES[head])
            self._announce(head, details["heads"][head])
            if head == "linear_probe":
                numbers.update(self._probes(folds, projection))
        if hasattr(self.dm.dataset, "twins"):
            self._compare_with_twins(numbers, details)
        return numbers, details

    def _probes(self, folds: Sequence[Fold], projection: InvariantProjection) -> dict[str, Tensor]:
        """The plain probe and the one in the subspace, both on all source images."""
        features = torch.cat([fold.features for fold in folds])
        labels = torch.cat([fold.labels for fold in folds])
        numbers = {}
        for name, inputs in (("plain", features), ("icm", projection(features))):
            probe = fit_probe(
                inputs,
                labels,
                len(self.classnames),
                c=self.settings.C,
                max_iter=self.settings.MAX_ITER,
            )
            numbers |= {f"probe_{name}_weight": probe.weight, f"probe_{name}_bias": probe.bias}
        return numbers

    def _described(
        self, choice: Choice, scored: Sequence[Scored], projection: InvariantProjection
    ) -> dict[str, Any]:
        return {
            "choice": asdict(choice),
            "source_accuracy": best(scored).mean if scored else None,
            "grid": [cell.record() for cell in scored],
            "settings": asdict(projection.settings),
            "intervention_energy_kept": projection.intervention_energy_kept,
            "feature_energy_kept": projection.feature_energy_kept,
            "spectrum": projection.spectrum.tolist(),
        }

    def _announce(self, head: str, facts: dict[str, Any]) -> None:
        choice = facts["choice"]
        print(
            f"Invariant subspace for {head}: {choice['estimator']}, strength "
            f"{choice['strength']:g}, {choice['dim_inv']} of {self.encoder.dim} dimensions; keeps "
            f"{100 * facts['intervention_energy_kept']:.1f} % of the interventions' change and "
            f"{100 * facts['feature_energy_kept']:.1f} % of the features' energy"
        )

    def _compare_with_twins(self, numbers: dict[str, Tensor], details: dict[str, Any]) -> None:
        """How far the subspace is from the one that exact interventional twins give."""
        exact = InterventionMoments(self.encoder.dim, normalize=self.settings.NORMALIZE)
        for group in self._groups():
            features = self.features(group.items, desc=group.name)
            paths = [item.impath for item in group.items]
            exact.merge(self._moments(features, [self._twin_features(group)], paths))
        if exact.n_pairs < exact.dim:
            print(f"{exact.n_pairs} exact twins are too few to compare {exact.dim} dimensions with")
            return
        for head in self.heads:
            choice = Choice(**details["heads"][head]["choice"])
            twins = choice.solve(exact, keep=self.settings.KEEP)
            details["heads"][head]["twins"] = {
                **angles(numbers[f"{head}_basis"], twins.basis),
                "intervention_energy_kept": kept(numbers[f"{head}_basis"], exact.changes),
            }

    # -- prediction ----------------------------------------------------------------------------

    def use_fit(self) -> None:
        model, facts = self.model, self.model.facts
        self.projections = {}
        for head, described in facts["details"]["heads"].items():
            tensors = {name: getattr(model, f"{head}_{name}") for name in TENSORS}
            settings = ProjectionSettings(**described["settings"])
            projection = InvariantProjection(**tensors, settings=settings)
            self.projections[head] = projection.to(self.device)
        same_classes = self.fitted_classnames == self.classnames
        self.probes = {}
        if "linear_probe" in self.projections and same_classes:
            for name in ("plain", "icm"):
                weight, bias = (
                    getattr(model, f"probe_{name}_{part}") for part in ("weight", "bias")
                )
                self.probes[name] = Probe(weight, bias)
        if self.settings.HEAD == "linear_probe":
            self.require_same_classes()

    def predict_features(self, features: Tensor) -> Prediction:
        zeroshot = self.projections["zeroshot"].cosine_logits(
            features,
            self.text,
            self.logit_scale,
            normalize=self.settings.NORMALIZE_PROJECTED,
        )
        readings = {
            "zeroshot": Reading.of_logits(cosine_logits(features, self.text, self.logit_scale)),
            "zeroshot_icm": Reading.of_logits(zeroshot),
        }
        if self.probes:
            inside = self.projections["linear_probe"](features)
            readings["linear_probe"] = Reading.of_logits(self.probes["plain"].logits(features))
            readings["linear_probe_icm"] = Reading.of_logits(self.probes["icm"].logits(inside))
        return Prediction(readings[f"{self.settings.HEAD}_icm"], readings)


def angles(basis: Tensor, other: Tensor) -> dict[str, float]:
    """Principal angles between two spans in degrees, and the share of one inside the other.

    ``overlap`` is the mean squared cosine; two random spans have k / D of it (``chance``).
    """
    theta = subspace_angles(basis.cpu().double().numpy(), other.cpu().double().numpy())
    return {
        "largest_angle": float(np.degrees(theta.max())),
        "mean_angle": float(np.degrees(theta.mean())),
        "overlap": float(np.square(np.cos(theta)).mean()),
        "chance": basis.shape[1] / basis.shape[0],
    }


def kept(basis: Tensor, moment: Tensor) -> float:
    """Share of tr(moment) inside the span of the basis."""
    span = torch.linalg.qr(basis.to(moment)).Q
    return float((span * (moment @ span)).sum() / moment.trace())
