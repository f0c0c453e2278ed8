"""CLIP-ICM: classify in the subspace that interventions leave unchanged.

Song et al., "Learning Invariant Causal Mechanism from Vision-Language Models", ICML 2025,
arXiv 2405.15289. What neither the paper nor its code states is marked as ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from yacs.config import CfgNode

from causalclip.clip.interface import backbone_of
from causalclip.clip.texts import readable
from causalclip.clip.zeroshot import text_features
from causalclip.engine.contexts import descriptions_of, handcrafted_features
from causalclip.engine.feature_cache import ImageSet
from causalclip.engine.feature_trainer import FeatureTrainer
from causalclip.engine.prediction import Prediction, Reading
from causalclip.icm.config import ICMConfig, Subspace
from causalclip.icm.fitted import FittedICM, fit_probes, joined_logits
from causalclip.settings.constraints import integer, list_of, number, text
from causalclip.settings.dataclass_settings import config_from, errors_by_key, settings_of
from causalclip.settings.search import Choice
from causalclip.settings.table import PREC, TEMPLATE, Setting

# Modules that only a fit needs are imported there: the plug-in imports this file at every start.
if TYPE_CHECKING:
    from causalclip.icm.captions import CaptionedImage
    from causalclip.icm.folds import Fold, Sources
    from causalclip.icm.search import Chosen
    from causalclip.icm.subspace import InterventionMoments

NODE = "TRAINER.CLIP_ICM"
PROJECTION_FILES = {
    "zeroshot": "projection.safetensors",  # a file for PROJECTION of CDC and other methods
    "linear_probe": "projection_linear_probe.safetensors",
    "new_classes": "projection_new_classes.safetensors",
}
POSITIVE = number(0, open_low=True)
CAPTIONS = Setting(
    "",
    text(),
    "JSON file of captions and rewritten captions; empty: a grid of classes and attributes.",
    names_file=True,
)


class CLIP_ICM(FeatureTrainer[FittedICM]):  # noqa: N801 (the registered name)
    """Estimate A_inv from interventional pairs; classify A_inv' z zero-shot and by a probe."""

    config_node = "CLIP_ICM"
    fit_class = FittedICM
    settings_table = {
        **settings_of(
            ICMConfig,
            {
                "TEXT_WEIGHT": number(0, 1, open_low=True, open_high=True),
                "STRENGTH": number(0, 4, open_low=True),
                "DRAWS": integer(0, 10_000),
                "LAM": number(0),
                "EPS": POSITIVE,
                "DIM_INV": integer(0, 100_000),  # `Sources.check` has the bound of the backbone
                "GRID_LAMS": list_of(number(0), least=0),
                "GRID_EPS": list_of(POSITIVE, least=0),
                "GRID_DIMS": list_of(number(0, 1, open_low=True)),
                "SELECT_MARGIN": number(0),
                "SELECT_IMAGES": integer(0, 1_000_000),
                "SELECT_ABOVE_CHANCE": number(0, 100),
                "CLASS_FOLDS": integer(0, 100_000),
                "BOOTSTRAP": integer(0, 100_000),
                "C": POSITIVE,
                "MAX_ITER": integer(1, 1_000_000),
            },
        ),
        "CAPTIONS": CAPTIONS,
        "TEMPLATE": TEMPLATE,
        "PREC": PREC,
    }
    search_space = {"INTERVENTIONS": Choice(("IMAGE", "CROSS", "FIGURE"))}

    @classmethod
    def knows_other_classes(cls, settings: CfgNode) -> bool:
        """Return whether HEAD classifies by texts; the probe has only the classes of its fit."""
        return settings.HEAD != "linear_probe"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raise as the base class, and for settings that exclude each other."""
        super().check_cfg(cfg)
        config_from(ICMConfig, cfg.TRAINER.CLIP_ICM, where=NODE)

    @cached_property
    def config(self) -> ICMConfig:
        """The settings under TRAINER.CLIP_ICM."""
        return config_from(ICMConfig, self.settings, where=NODE)

    def build_method(self) -> None:
        """Encode the class names."""
        self.text = handcrafted_features(self, [self.template()]).float()

    # Interventional pairs

    @cached_property
    def sources(self) -> Sources:
        """The training images with their interventions.

        Raises:
            ValueError: settings that do not fit these images or the backbone, or bad captions.
        """
        from causalclip.icm.folds import Sources
        from causalclip.icm.groups import Sample

        encoder, dataset = self.encoder, self.dm.dataset
        key = encoder.key_of
        sources = Sources(
            self.config,
            [Sample(i.impath, key(i.impath), i.label, i.domain) for i in dataset.train_x],
            self.cfg.DATASET.SOURCE_DOMAINS,
            [readable(name) for name in self.classnames],
            encode_images=encoder.features,
            encode_texts=self.encode_captions,
            dim=encoder.dim,
            seed=self.cfg.SEED,
            twins=getattr(dataset, "twins", None),
            captions=self.captions(),
            descriptions=descriptions_of(self),
        )
        with errors_by_key(ICMConfig, where=NODE):
            sources.check()
        return sources

    def image_sets(self) -> Iterator[ImageSet]:
        """Also yield the training images and their interventions."""
        yield from super().image_sets()
        for paths, change in self.sources.image_sets():
            yield ImageSet(paths, change)

    def captions(self) -> list[CaptionedImage] | None:
        """Read the captions of the file that CAPTIONS names, if any.

        Raises:
            ValueError: no such JSON, or captions of images that are not in the data set.
        """
        if not self.config.captions:
            return None
        from causalclip.icm.captions import load_captions

        dataset = self.dm.dataset
        items = (*dataset.train_x, *(dataset.val or []), *dataset.test)
        keys = [self.encoder.key_of(item.impath) for item in items]
        return load_captions(self.config.captions, images=keys)

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Encode N captions to text features (N, D) in fp32, on the CPU."""
        cut, backbone = self.config.captions_too_long == "cut", backbone_of(self.clip)
        count, length = backbone.tokenizer.count, backbone.context_length
        if cut and (too_long := sum(count(caption) > length for caption in captions)):
            print(f"Cut {too_long} of {len(captions)} captions at {length} tokens")
        with self.backbone.autocast():
            return text_features(self.clip, captions, cut=cut)

    # The choice

    def fit(self) -> FittedICM:
        """Choose subspaces on the source domains, write them to files, and fit the probes.

        Raises:
            ValueError: settings, features or captions that cannot be used; names them.
        """
        from causalclip.icm.folds import pooled

        config, sources = self.config, self.sources
        folds, exact = sources.folds(), sources.exact_moments()
        if exact is not None and exact.n_pairs < exact.dim:
            print(f"{exact.n_pairs} exact twins are too few to compare {exact.dim} dimensions with")
            exact = None
        chosen: dict[Subspace, Chosen] = {
            head: self.choose(head, folds, exact) for head in config.heads
        }
        if config.select_new != "same":
            chosen["new_classes"] = self.choose("new_classes", sources.class_folds(), exact)
        projections = {head: choice.projection for head, choice in chosen.items()}
        probes = {}
        if config.probe:
            inside, n_classes = projections["linear_probe"], len(self.classnames)
            probes = fit_probes(folds, inside, n_classes, c=config.c, max_iter=config.max_iter)
        facts = {
            "folds": [fold.name for fold in folds],
            "pairs": pooled(folds, text_weight=config.text_weight).n_pairs,
            "heads": {head: choice.record() for head, choice in chosen.items()},
        }
        return FittedICM(projections, probes, facts)

    def choose(
        self, head: Subspace, folds: Sequence[Fold], exact: InterventionMoments | None
    ) -> Chosen:
        """Choose the subspace for a head, and write it to the output folder."""
        from causalclip.icm.search import choose_subspace

        text, seed = self.text.cpu(), self.cfg.SEED
        chosen = choose_subspace(self.config, head, folds, text, seed=seed, exact=exact)
        chosen.projection.save(Path(self.output_dir) / PROJECTION_FILES[head])
        for line in chosen.lines():
            print(f"Invariant subspace for {head}: {line}")
        return chosen

    # Prediction

    def predict_features(self, features: Tensor) -> Prediction:
        """Classify features (B, D) zero-shot and, if the classes are the fit's, by both probes."""
        plain = self.backbone.classify(features, self.text)
        logits = {"zeroshot": plain, "zeroshot_icm": self.logits_inside(features, plain)}
        if self.fitted.probes and self.fitted_classnames == self.classnames:
            logits |= self.fitted.probe_logits(features)
        readings = {name: Reading.of_logits(each) for name, each in logits.items()}
        return Prediction(readings[f"{self.config.head}_icm"], readings)

    def logits_inside(self, features: Tensor, plain: Tensor) -> Tensor:
        """Return zero-shot logits (B, K) in the subspaces from features (B, D) and plain logits."""
        projections, normalize = self.fitted.projections, self.config.normalize_projected
        both = (features, self.text, self.backbone.logit_scale)
        known = projections["zeroshot"].cosine_logits(*both, normalize=normalize)
        if "new_classes" not in projections:
            return known
        new = projections["new_classes"].cosine_logits(*both, normalize=normalize)
        if self.config.select_new == "combined":
            new = (plain + known + new) / 3
        return joined_logits(plain, known, new, self.is_new)

    @property
    def is_new(self) -> Tensor:
        """Which classes (K,) the fit has not seen, as bools."""
        seen = set(self.fitted_classnames)
        return torch.tensor([name not in seen for name in self.classnames], device=self.device)
