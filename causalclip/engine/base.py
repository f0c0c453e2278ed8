"""What every trainer shares: the frozen CLIP, the check of its settings, and evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from dassl.data import DataManager
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from causalclip.clip.backbone import image_size, load_clip, weights_digest
from causalclip.clip.zeroshot import cosine_logits
from causalclip.data.templates import given_template
from causalclip.engine.checkpoints import CheckpointTrainer
from causalclip.engine.loading import Epochs, training_loader
from causalclip.engine.prediction import Evaluated, Prediction, Reading
from causalclip.engine.settings import Constraint, OneOf, Text, check_settings
from causalclip.icm.subspace import InvariantProjection
from causalclip.metrics import classification_metrics
from causalclip.report.results import (
    run_record,
    write_predictions,
    write_results,
)

PRECISIONS = ("fp32", "fp16", "bf16", "amp")

# Settings that mean the same in every method that has them.
SHARED: Mapping[str, Constraint] = {
    "PREC": OneOf(PRECISIONS),
    "PROJECTION": Text(),  # file of an invariant projection, or empty
    "TEMPLATE": Text(holding="{}"),  # empty takes the data set's published template
}


class CLIPTrainer(CheckpointTrainer):
    """A method on a frozen CLIP: subclasses say what they learn and how they predict.

    A subclass sets ``config_node`` (its node below ``cfg.TRAINER``), ``defaults`` (that node's
    keys and values) and ``constraints`` (what may stand there), builds what it needs in
    ``build_method`` and answers ``predict``.
    """

    config_node: str
    defaults: Mapping[str, Any] = {}
    constraints: Mapping[str, Constraint] = {}  # a key without one is not checked
    knows_other_classes = True  # whether it can name classes it was not trained on

    @property
    def settings(self) -> CfgNode:
        """This method's own node of the configuration."""
        return self.cfg.TRAINER[self.config_node]

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuse settings that this method cannot run with, before any work.

        Raises:
            ValueError: names the key, what is allowed and what came.
        """
        node = self.config_node
        check_settings(cfg.TRAINER[node], {**SHARED, **self.constraints}, where=f"TRAINER.{node}")
        if not cfg.MODEL.BACKBONE.NAME:
            raise ValueError("MODEL.BACKBONE.NAME is empty: name a CLIP, for example tiny")
        given_template(cfg)  # raises for a DATASET.TEMPLATE that is none

    # -- building ------------------------------------------------------------------------------

    def train_views(self) -> list | None:
        """The transforms of the training images, one per view; None takes INPUT.TRANSFORMS."""
        return None

    def build_data_loader(self) -> None:
        """As Dassl's, with ``train_views`` as the training transforms and DATALOADER.DRAWS.

        Raises:
            ValueError: a setting of the loader that is out of its range.
        """
        self.dm = DataManager(self.cfg, custom_tfm_train=self.train_views())
        self.train_loader_x = training_loader(self.dm.train_loader_x, self.cfg)
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def before_epoch(self) -> None:
        """Hook of Dassl's: its number is what an epoch's draws come from."""
        super().before_epoch()
        if isinstance(self.train_loader_x, Epochs):
            self.train_loader_x.epoch = self.epoch

    def build_model(self) -> None:
        """Load the CLIP and build the method on it.

        Raises:
            ValueError: an INPUT.SIZE that is not the backbone's, a projection of another width, or
                what the method refuses.
        """
        cfg = self.cfg
        self.classnames = list(self.dm.dataset.classnames)
        print(f"Loading CLIP (backbone: {cfg.MODEL.BACKBONE.NAME})")
        self.clip = load_clip(
            cfg.MODEL.BACKBONE.NAME, device=self.device, precision=self.settings.PREC
        )
        check_input_size(cfg.INPUT.SIZE, image_size(self.clip), cfg.MODEL.BACKBONE.NAME)
        self.digest = weights_digest(self.clip)
        self.projection = self._load_projection()
        self.training_cost: dict[str, Any] | None = None
        self.build_method()

    def _load_projection(self) -> InvariantProjection | None:
        path = self.settings.get("PROJECTION", "")
        if not path:
            return None
        projection = InvariantProjection.load(path).to(self.device)
        width = self.clip.text_projection.shape[1]
        if projection.basis.shape[0] != width:
            raise ValueError(
                f"{path}: projection of {projection.basis.shape[0]}-d features, "
                f"but {self.cfg.MODEL.BACKBONE.NAME} has {width}-d features"
            )
        return projection

    def build_method(self) -> None:
        """Build and register what the method learns; nothing for a method that learns nothing."""

    # -- classifying ---------------------------------------------------------------------------

    @property
    def logit_scale(self) -> Tensor:
        """exp(logit_scale) of CLIP in fp32; 100 in the released models."""
        return self.clip.logit_scale.detach().float().exp()

    def classify(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """scale * cosine (..., K), inside the invariant subspace when PROJECTION names one.

        Args:
            image_features: (..., E), not normalised.
            text_features: (K, E), or (..., K, E) where each image or template has its own.
        """
        image_features, text_features = image_features.float(), text_features.float()
        if self.projection is not None:
            image_features = self.projection(image_features)
            text_features = self.projection(text_features)
        return cosine_logits(image_features, text_features, self.logit_scale)

    def predict(self, images: Tensor) -> Prediction:
        """The readings of a test batch (B, 3, H, W): probabilities (B, K), uncertainty (B,)."""
        raise NotImplementedError

    def predictor(self) -> Callable[[Tensor], Prediction]:
        """``predict`` for one evaluation; holds what is the same for all of its batches."""
        return self.predict

    def model_inference(self, images: Tensor) -> Tensor:
        """Class log-probabilities (B, K): what Dassl's generic code expects from a trainer."""
        return self.predict(images).main.probabilities.clamp_min(1e-12).log()

    def autocast(self):
        """Mixed precision under PREC amp: fp16 on a GPU, bf16 on a CPU; otherwise nothing."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.settings.PREC == "amp")

    # -- evaluation ----------------------------------------------------------------------------

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on a split, write results.json and predictions.npz, return the accuracy.

        Raises:
            ValueError: the data set has no such split, or an empty one.
        """
        split = split or self.cfg.TEST.SPLIT
        loader = self._loader(split)
        print(f"Evaluate on the *{split}* set")
        start = time.perf_counter()
        self.set_model_mode("eval")
        evaluated = self.collect(loader)
        seconds = time.perf_counter() - start
        self.evaluator.reset()
        self.evaluator.process(evaluated.prediction.main.probabilities, evaluated.labels)
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        if split == self.cfg.TEST.SPLIT:  # a val pass that only selects a checkpoint leaves no file
            self.report(split, evaluated, seconds)
        return next(iter(results.values()))

    def _loader(self, split: str) -> Iterable:
        if split == "val":
            if self.val_loader is None:
                raise ValueError(
                    f"{self.cfg.DATASET.NAME} has no validation split to evaluate on: use "
                    "TEST.SPLIT test, and TEST.FINAL_MODEL last_step"
                )
            return self.val_loader
        return self.test_loader

    def collect(self, loader: Iterable) -> Evaluated:
        """What the method answers about every image of a loader, batch by batch."""
        predict = self.predictor()
        predictions, labels, paths = [], [], []
        for batch in tqdm(loader, desc="evaluate", leave=False):
            images, label = self.parse_batch_test(batch)
            with self.autocast():
                predictions.append(Prediction.joined([predict(images)]))  # off the GPU at once
            labels.append(label.cpu())
            paths += map(str, batch["impath"])
        return Evaluated(Prediction.joined(predictions), torch.cat(labels), tuple(paths))

    def report(self, split: str, evaluated: Evaluated, seconds: float) -> None:
        """Write results.json and predictions.npz of one evaluation into OUTPUT_DIR."""
        record = run_record(self.cfg, classnames=self.classnames, split=split)
        record.update(metrics_record(evaluated, self.parts(evaluated)))
        record["training"] = self.training_cost
        record["trained_on"] = self.trained_on
        record["evaluation"] = {"seconds": seconds, "images": len(evaluated.labels)}
        record["details"] = self.details()
        write_predictions(self.output_dir, evaluated.arrays())
        write_results(self.output_dir, record)
        print(f"Results: {Path(self.output_dir) / 'results.json'}")

    def parts(self, evaluated: Evaluated) -> dict[str, Tensor]:
        """Named subsets, boolean rows (N,), of the test set that are reported beside the whole:
        ``heldout`` of the target domain; ``base`` and ``open`` for a model that was trained on
        some of this run's classes."""
        named = {}
        heldout = getattr(self.dm.dataset, "heldout_test", None)
        if heldout:
            named["heldout"] = torch.tensor([path in heldout for path in evaluated.paths])
        known = self.known_classes()
        if known:
            named["base"] = torch.isin(evaluated.labels, torch.tensor(known))
            named["open"] = ~named["base"]
        return {name: rows for name, rows in named.items() if rows.any()}

    def known_classes(self) -> list[int]:
        """Labels of the classes the loaded model was trained on, where there are others too."""
        if self.trained_on is None or self.trained_on["dataset"] != self.cfg.DATASET.NAME:
            return []
        trained = self.trained_on["classnames"]
        known = [label for label, name in enumerate(self.classnames) if name in trained]
        return known if len(known) < len(self.classnames) else []

    def details(self) -> dict[str, Any]:
        """Further facts about the fitted method for results.json (JSON values only)."""
        return {}


def check_input_size(size: Iterable[int], expected: int, backbone: str) -> None:
    """Refuse another INPUT.SIZE than the backbone's position embedding was made for.

    Raises:
        ValueError: names both sizes.
    """
    if tuple(size) != (expected, expected):
        raise ValueError(
            f"INPUT.SIZE must be ({expected}, {expected}) for {backbone}, got {tuple(size)}"
        )


def metrics_record(evaluated: Evaluated, parts: Mapping[str, Tensor]) -> dict[str, Any]:
    """What results.json says of an evaluation's readings; each is measured once on each part.

    Args:
        evaluated: the answers about N images.
        parts: boolean rows (N,) by name.
    """
    prediction, labels = evaluated.prediction, evaluated.labels
    whole = {reading: metrics_of(reading, labels) for reading in prediction.distinct()}
    on_parts = {
        reading: {name: metrics_of(reading, labels, rows) for name, rows in parts.items()}
        for reading in whole
    }
    return {
        "metrics": whole[prediction.main],
        "variants": {name: whole[reading] for name, reading in prediction.readings.items()},
        "parts": on_parts[prediction.main],
        "variant_parts": {name: on_parts[reading] for name, reading in prediction.readings.items()},
        "members": {
            name: [metrics_of(member, labels) for member in members.each()]
            for name, members in prediction.members.items()
        },
    }


def metrics_of(
    reading: Reading, labels: Tensor, rows: Tensor | slice = slice(None)
) -> dict[str, float]:
    """The metrics of a reading of N images with labels (N,), on the chosen rows."""
    return classification_metrics(
        reading.probabilities[rows], labels[rows], reading.uncertainty[rows]
    )
