"""FeatureTrainer: a method fitted on frozen image features, without gradient descent."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, cast

import torch
from dassl.data.data_manager import build_data_loader
from dassl.engine.trainer import SimpleTrainer
from torch import Tensor
from yacs.config import CfgNode

from causalclip.clip.interface import backbone_of
from causalclip.clip.texts import check_distinct_classes
from causalclip.data.catalogue import dataset_template
from causalclip.engine.checkpoint_file import (
    POINTER,
    check_identity,
    checkpoint_path,
    load_state,
    read_checkpoint,
)
from causalclip.engine.checkpoints import Checkpointer
from causalclip.engine.contexts import handcrafted_features, published_templates
from causalclip.engine.data import attach_classes, attach_data, data_digests
from causalclip.engine.evaluation import evaluate
from causalclip.engine.feature_cache import Encoder, ImageSet, encoder_of
from causalclip.engine.fit import FitModule, FitT
from causalclip.engine.frozen_clip import FrozenCLIP
from causalclip.engine.loading import end_workers, shown_by, training_loader
from causalclip.engine.prediction import Prediction
from causalclip.records.json_types import plain
from causalclip.records.results import peak_memory_mb, result_in
from causalclip.settings.check import check_cfg
from causalclip.settings.search import SearchSpace
from causalclip.settings.table import Setting

# Keys of DATASET that a fit does not depend on: the folder, and what is tested.
UNFITTED_KEYS = ("ROOT", "TARGET_DOMAINS", "TEST_CORRELATION")


class FeatureTrainer(SimpleTrainer, Generic[FitT]):
    """Base class of methods on CLIP's image features; define `fit` and `predict_features`.

    `fit_class` is the type that `fit` returns; a method without it learns nothing. Images pass
    through the test transform, because features of augmented images are not cached.
    """

    config_node: str
    settings_table: Mapping[str, Setting] = {}
    model_name = "fit"
    fit_class: type[FitT] | None = None
    model: FitModule[FitT]

    backbones = "all"
    """As in PromptTrainer."""
    test_order: Callable[[int], Tensor] = staticmethod(lambda n: torch.arange(n))
    """Maps the number n of test images to the order (n,) in which their features are classified."""
    test_views: int | None = None
    """Number of views of a test image that are encoded; None for the image itself."""
    searches = False
    """Whether the method chooses hyperparameters on the validation split."""
    image_tower_untouched = True
    several_processes = False
    search_space: SearchSpace = {}

    def __init__(self, cfg: CfgNode, *, classnames: Sequence[str] | None = None) -> None:
        """Build the method; with K class names in place of a data set it can only predict."""
        self.given_classnames = classnames
        super().__init__(cfg)

    # Dassl's hooks

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raise for settings that this method cannot run with, as `settings.check.check_cfg`."""
        check_cfg(cfg, self.config_node, self.settings_table)

    def build_data_loader(self) -> None:
        """Set the loaders and the classes; raise as `attach_data`."""
        if self.given_classnames is not None:
            attach_classes(self, self.given_classnames)
        else:
            attach_data(self)

    def build_model(self) -> None:
        """Load the CLIP and build the method; raise as `load_backbone`."""
        self.backbone = self.load_backbone()
        self.clip = self.backbone.model
        check_distinct_classes(self.classnames, backbone_of(self.clip).tokenizer)
        self.checkpointer = Checkpointer(self)
        if self.fit_class is not None:
            self.model = FitModule(self.fit_class, self.device)
            self.register_model(self.model_name, self.model)
        self.build_method()

    def train(self) -> None:
        """Fit, save and test; a finished fit of the same inputs in the output folder is reused."""
        start = time.perf_counter()
        if self.fit_class is None:
            print(f"{type(self).__name__} learns nothing: evaluation only")
        elif self._reuse():
            result = result_in(self.output_dir)
            self.checkpointer.training_cost = result and result.training
        else:
            try:
                self.model.hold(self.fit(), self.fitted_with())
            finally:
                end_workers(self.train_loader_x)
            self.checkpointer.training_cost = {
                "seconds": time.perf_counter() - start,
                "images": len(self.dm.dataset.train_x),
                "learnable_parameters": sum(t.numel() for t in self.fitted.state().values()),
                "peak_memory_mb": peak_memory_mb(self.device),
            }
            self.save_model(0, self.output_dir)
        if self.fit_class is not None:
            self.check_fit()
            print("Finish training")
        if not self.cfg.TEST.NO_TEST or self.fit_class is None:
            self.test()
        elapsed = round(time.perf_counter() - start)
        print(f"Elapsed: {datetime.timedelta(seconds=elapsed)}")

    def _reuse(self) -> bool:
        folder = Path(self.cfg.RESUME or self.output_dir) / self.model_name
        if not (folder / POINTER).exists():
            return False
        path = checkpoint_path(folder, None)
        checkpoint = read_checkpoint(path)
        check_identity(checkpoint, self.checkpointer.identity(), path)
        load_state(self.model, checkpoint["state_dict"], path)
        same = self.model.fitted_with == self.fitted_with()
        how = "the same settings, nothing to fit" if same else "other settings, fitting again"
        print(f"Fitted before with {how}: {path}")
        return same

    def test(self, split: str | None = None) -> float:
        """Evaluate on a split; return the accuracy in per cent, and raise as `evaluate`."""
        return evaluate(self, split)

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Write the fit as a checkpoint; arguments as in Dassl."""
        self.checkpointer.save(*args, **kwargs)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a fit for an evaluation; raise as `Checkpointer.load` and `check_fit`."""
        self.checkpointer.load(directory, epoch)
        if self.fit_class is not None:
            self.check_fit()

    # Facts

    @property
    def settings(self) -> CfgNode:
        """The method's own node of the configuration."""
        return self.cfg.TRAINER[self.config_node]

    @cached_property
    def classnames(self) -> list[str]:
        """The class names of this run, in the order of their labels."""
        return list(self.dm.dataset.classnames)

    @cached_property
    def encoder(self) -> Encoder:
        """CLIP's own image tower with the test transform and a cache on disk."""
        return encoder_of(self)

    def template(self) -> str:
        """Return the hand-crafted prompt: the method's TEMPLATE, else the data set's."""
        return self.settings.get("TEMPLATE") or dataset_template(self.cfg)

    @property
    def fitted(self) -> FitT:
        """The fit that was made or loaded last, on this trainer's device."""
        assert self.model.fit is not None, "neither fitted nor loaded yet"
        return self.model.fit

    @property
    def fitted_classnames(self) -> list[str]:
        """The class names that the fit was made for."""
        return self.model.fitted_with["classnames"]

    def fitted_with(self) -> dict[str, Any]:
        """Return everything a fit depends on, as JSON values."""
        data = plain(self.cfg.DATASET)
        images = data_digests(self.dm.dataset, self.cfg.DATASET.ROOT)
        return {
            "weights": self.backbone.digest,
            "settings": plain(self.settings),
            "data": {key: value for key, value in data.items() if key not in UNFITTED_KEYS},
            "seed": self.cfg.SEED,
            "input": plain(self.cfg.INPUT),
            "classnames": self.classnames,
            "images": {name: digest for name, digest in images.items() if name != "test"},
        }

    def details(self) -> dict[str, Any]:
        """Return the facts of the fit for results.json."""
        return {} if self.fit_class is None else dict(self.fitted.facts)

    # A method defines

    @classmethod
    def knows_other_classes(cls, settings: CfgNode) -> bool:
        """Return whether the method, with these settings, predicts classes not seen in training."""
        return True

    def load_backbone(self) -> FrozenCLIP:
        """Return the CLIP that MODEL.BACKBONE names; raise as `FrozenCLIP.from_cfg`."""
        return FrozenCLIP.from_cfg(self.cfg, self.settings, self.device)

    def build_method(self) -> None:
        """Encode the class names as unit features `text` (K, E), which most methods use."""
        self.text = handcrafted_features(self, published_templates(self.cfg)).float()

    def fit(self) -> FitT:
        """Fit the method to the training images; return a `fit_class`.

        Raises:
            NotImplementedError: unless a subclass defines it.
        """
        raise NotImplementedError

    def check_fit(self) -> None:
        """Raise if the fit, just made or loaded, cannot predict this run's classes.

        Raises:
            ValueError: other classes than the fit's, for a method that knows no others.
        """
        known, classnames = self.fitted_classnames, self.classnames
        if known != classnames and not self.knows_other_classes(self.settings):
            raise ValueError(
                f"{self.cfg.TRAINER.NAME} knows only its {len(known)} classes "
                f"({', '.join(known[:5])}, ...), this run has {len(classnames)} "
                f"({', '.join(classnames[:5])}, ...): use a zero-shot or prompt method for new "
                "classes"
            )

    def predict_features(self, features: Tensor) -> Prediction:
        """Return the readings of the encoder's features (B, D) in fp32.

        Raises:
            NotImplementedError: unless a subclass defines it.
        """
        raise NotImplementedError

    def image_sets(self) -> Iterator[ImageSet]:
        """Yield the images whose features this method reads from the feature cache."""
        yield ImageSet.of(self.dm.dataset.test)
        if self.searches and self.dm.dataset.val:
            yield ImageSet.of(self.dm.dataset.val)

    def searched(self) -> tuple[Tensor, Tensor] | None:
        """Return features (N, E) and labels (N,) of the validation split on the device.

        None if nothing is searched, or if the split is missing or the test split itself.
        """
        dataset = self.dm.dataset
        if not self.searches or not dataset.val or dataset.val is dataset.test:
            return None
        features, labels = self.encoder.labelled(dataset.val, desc="val")
        return features.to(self.device), labels.to(self.device)

    @torch.no_grad()
    def augmented_passes(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features (N, D) in fp32 and labels (N,) of the training images, `count` times.

        Each pass draws new augmentations; the images keep their order.
        """
        loader = build_data_loader(
            self.cfg,
            sampler_type="SequentialSampler",
            data_source=self.dm.dataset.train_x,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            tfm=shown_by(self.train_loader_x).transform,
            is_train=False,
        )
        images = cast(Iterable[dict[str, Any]], training_loader(loader, self.cfg))
        try:
            for _ in range(count):
                batches = [(self.encoder.encode(batch["img"]), batch["label"]) for batch in images]
                features, labels = zip(*batches, strict=True)
                yield torch.cat(features).float(), torch.cat(labels).to(self.device)
        finally:
            end_workers(images)

    # Prediction

    def predict(self, images: Tensor) -> Prediction:
        """Return the readings of images (B, 3, H, W)."""
        return self.predict_features(self.encoder.encode(images).float())

    def predictor(self) -> Callable[[Tensor], Prediction]:
        """Return the function that predicts features; a fit is used in fp32 even under PREC amp."""
        if self.fit_class is None:
            return self.predict_features
        return torch.autocast(self.device.type, enabled=False)(self.predict_features)
