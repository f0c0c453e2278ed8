"""FeatureTrainer: what the methods fitted on frozen image features share; no gradient descent."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic

import numpy as np
import torch
from dassl.utils import load_checkpoint
from torch import Tensor

from causalclip.clip.injection import encode_image
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.checkpoints import check_identity, checkpoint_path, load_state
from causalclip.engine.feature_cache import Change, Encoder, batches, cache_folder
from causalclip.engine.fit import FitModule, FitT
from causalclip.engine.prediction import Evaluated, Prediction
from causalclip.report.results import peak_memory_mb

# Which data set keys a fit does not depend on: where it lies, and what it is tested on.
UNFITTED_KEYS = ("ROOT", "TARGET_DOMAINS", "TEST_CORRELATION")


class FeatureTrainer(CLIPTrainer, Generic[FitT]):
    """A method fitted on CLIP's image features of the training images.

    A subclass sets ``fit_class``, answers ``fit`` with one of it, and ``predict_features`` from
    ``self.fitted``, just fitted or loaded. Images are seen through the test transform, because an
    augmented image has no feature to keep.
    """

    model_name = "fit"
    fit_class: type[FitT]

    def build_method(self) -> None:
        """Register the fit that is to come, and make the encoder of image features."""
        self.model = FitModule(self.fit_class, self.device)
        self.register_model(self.model_name, self.model)
        loader = self.test_loader
        self.encoder = Encoder(
            encode=self._encode,
            dim=self.clip.text_projection.shape[1],
            identity=f"{self.digest} {self.settings.PREC}",
            transform=loader.dataset.transform,
            root=self.cfg.DATASET.ROOT,
            batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE,
            num_workers=self.cfg.DATALOADER.NUM_WORKERS,
            cache=cache_folder() if self.cfg.FEATURE_CACHE else None,
        )

    def _encode(self, images: Tensor) -> Tensor:
        with self.autocast():
            return encode_image(self.clip, images.to(self.device))

    def features(
        self, items: Sequence, change: Change | None = None, *, desc: str = "encode"
    ) -> np.ndarray:
        """Features (N, D) of N data set items, changed by ``change`` first; from the disk cache.

        Raises:
            ValueError: features that are NaN or infinite; names the images.
        """
        return self.encoder.features([item.impath for item in items], change, desc=desc)

    def labelled(self, items: Sequence, *, desc: str = "encode") -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of data set items, on the CPU."""
        features = torch.from_numpy(self.features(items, desc=desc))
        return features, torch.tensor([item.label for item in items])

    # -- fitting -------------------------------------------------------------------------------

    def fit(self) -> FitT:
        """What the training images say, as a ``fit_class``."""
        raise NotImplementedError

    @property
    def fitted(self) -> FitT:
        """The fit that was made or loaded last, on this trainer's device."""
        assert self.model.fit is not None, "neither fitted nor loaded yet"
        return self.model.fit

    def check_fit(self) -> None:
        """Refuse a fit, just made or loaded, that cannot be used on this run's classes.

        Raises:
            ValueError: says why.
        """

    def fitted_with(self) -> dict[str, Any]:
        """Everything a fit depends on, JSON values: a finished fit of the same is not repeated."""
        data = self.cfg.DATASET
        return {
            "weights": self.digest,
            "settings": plain(self.settings),
            "data": {key: value for key, value in plain(data).items() if key not in UNFITTED_KEYS},
            "seed": self.cfg.SEED,
            "input": plain(self.cfg.INPUT),
            "classnames": self.classnames,
        }

    def train(self) -> None:
        """Fit, save and test. A finished fit of the same settings in the output folder is reused,
        as the family's trainers do; one of other settings is replaced."""
        start = time.perf_counter()
        if not self._reuse():
            self.model.hold(self.fit(), self.fitted_with())
            self.training_cost = {
                "seconds": time.perf_counter() - start,
                "images": len(self.dm.dataset.train_x),
                "learnable_parameters": sum(t.numel() for t in self.fitted.state().values()),
                "peak_memory_mb": peak_memory_mb(self.device),
            }
            self.save_model(0, self.output_dir)
        self.check_fit()
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            self.test()
        elapsed = round(time.perf_counter() - start)
        print(f"Elapsed: {datetime.timedelta(seconds=elapsed)}")

    def _reuse(self) -> bool:
        folder = Path(self.cfg.RESUME or self.output_dir) / self.model_name
        if not (folder / "checkpoint").exists():
            return False
        path = checkpoint_path(folder, None)
        checkpoint = load_checkpoint(str(path))
        check_identity(checkpoint, self.checkpoint_identity(), path)
        load_state(self.model, checkpoint["state_dict"], path)
        if self.model.fitted_with == self.fitted_with():
            print(f"Fitted before with the same settings, nothing to fit: {path}")
            return True
        print(f"Fitted before with other settings, fitting again: {path}")
        return False

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """As in CheckpointTrainer; then ``check_fit``.

        Raises:
            ValueError: a checkpoint of another method or backbone, or one ``check_fit`` refuses.
            FileNotFoundError: no checkpoint there.
        """
        super().load_model(directory, epoch)
        self.check_fit()

    @property
    def fitted_classnames(self) -> list[str]:
        """The classes that the fit has seen."""
        return self.model.fitted_with["classnames"]

    def require_same_classes(self) -> None:
        """For ``check_fit`` of a classifier without text, which knows the classes of its fit alone.

        Raises:
            ValueError: this run has others; names both.
        """
        if self.fitted_classnames != self.classnames:
            raise ValueError(
                f"{self.cfg.TRAINER.NAME} knows only its {len(self.fitted_classnames)} classes "
                f"({', '.join(self.fitted_classnames[:5])}, ...), this run has "
                f"{len(self.classnames)} ({', '.join(self.classnames[:5])}, ...): use a zero-shot "
                "or prompt method for new classes"
            )

    def details(self) -> dict[str, Any]:
        """The facts of the fit, for results.json."""
        return dict(self.fitted.facts)

    # -- prediction ----------------------------------------------------------------------------

    def predict_features(self, features: Tensor) -> Prediction:
        """What ``predict`` answers, from image features (B, D) in fp32."""
        raise NotImplementedError

    def predict(self, images: Tensor) -> Prediction:
        """The readings of a test batch (B, C, H, W)."""
        return self.predict_features(self._encode(images).float())

    def collect(self, loader: Iterable) -> Evaluated:
        """As in CLIPTrainer, but every image's features come from the disk cache."""
        items = loader.dataset.data_source
        features = self.features(items, desc="evaluate")
        parts = [self.predict_features(part.to(self.device)) for part in batches(features)]
        return Evaluated(
            Prediction.joined(parts),
            torch.tensor([item.label for item in items]),
            tuple(item.impath for item in items),
        )


def plain(node: Any) -> Any:
    """A configuration node as JSON values."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [plain(value) for value in node]
    return node
