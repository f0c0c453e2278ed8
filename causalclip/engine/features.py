"""FeatureTrainer: what the methods fitted on frozen image features share; no gradient descent."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dassl.utils import load_checkpoint
from torch import Tensor, nn

from causalclip.clip.injection import encode_image
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.checkpoints import check_identity, checkpoint_path, load_state
from causalclip.engine.feature_cache import Change, Encoder, batches
from causalclip.engine.prediction import Evaluated, Prediction
from causalclip.report.results import peak_memory_mb


class Fitted(nn.Module):
    """The numbers a fit found, whose names and shapes it alone knows, and JSON facts about them."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[str, Any] = {}

    def hold(self, facts: dict[str, Any], **numbers: Tensor) -> None:
        """Take over the result of a fit in place of an earlier one."""
        self._buffers.clear()
        self.facts = facts
        for name, tensor in numbers.items():
            self.register_buffer(name, tensor.detach().clone())

    def get_extra_state(self) -> dict[str, Any]:
        return self.facts

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.facts = state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        names = [name for name in state_dict if name != f"{prefix}_extra_state"]
        self.hold({}, **{name.removeprefix(prefix): state_dict[name] for name in names})
        super()._load_from_state_dict(state_dict, prefix, *args)


class FeatureTrainer(CLIPTrainer):
    """A method fitted on CLIP's image features of the training images.

    A subclass answers ``fit`` with the numbers it found, builds its classifier from them in
    ``use_fit``, and answers ``predict_features``. Images are seen through the test transform,
    because an augmented image has no feature to keep.
    """

    model_name = "fit"

    def build_method(self) -> None:
        self.model = Fitted()
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
        )

    def _encode(self, images: Tensor) -> Tensor:
        with self.autocast():
            return encode_image(self.clip, images.to(self.device))

    def features(
        self, items: Sequence, change: Change | None = None, *, desc: str = "encode"
    ) -> np.ndarray:
        """Features (N, D) of data set items, changed by ``change`` first; from the disk cache."""
        return self.encoder.features([item.impath for item in items], change, desc=desc)

    def labelled(self, items: Sequence, *, desc: str = "encode") -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of data set items, on the CPU."""
        features = torch.from_numpy(self.features(items, desc=desc))
        return features, torch.tensor([item.label for item in items])

    # -- fitting -------------------------------------------------------------------------------

    def fit(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What was learned from the training images: tensors by name, and details (JSON values)."""
        raise NotImplementedError

    def use_fit(self) -> None:
        """Build the classifier from ``self.model``, just fitted or loaded; refuse what cannot be
        used on this run's classes."""

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
            numbers, details = self.fit()
            facts = {"details": details, "fitted_with": self.fitted_with()}
            self.model.hold(facts, **numbers)
            self.training_cost = {
                "seconds": time.perf_counter() - start,
                "images": len(self.dm.dataset.train_x),
                "learnable_parameters": sum(b.numel() for b in self.model.buffers()),
                "peak_memory_mb": peak_memory_mb(self.device),
            }
            self.save_model(0, self.output_dir)
        self.use_fit()
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
        if self.model.facts["fitted_with"] == self.fitted_with():
            print(f"Fitted before with the same settings, nothing to fit: {path}")
            return True
        print(f"Fitted before with other settings, fitting again: {path}")
        return False

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        super().load_model(directory, epoch)
        self.use_fit()

    @property
    def fitted_classnames(self) -> list[str]:
        """The classes that the fit has seen."""
        return self.model.facts["fitted_with"]["classnames"]

    def require_same_classes(self) -> None:
        """Raise where a classifier without text is to classify other classes than its own."""
        if self.fitted_classnames != self.classnames:
            raise ValueError(
                f"{self.cfg.TRAINER.NAME} knows only its {len(self.fitted_classnames)} classes "
                f"({', '.join(self.fitted_classnames[:5])}, ...), this run has "
                f"{len(self.classnames)} ({', '.join(self.classnames[:5])}, ...): use a zero-shot "
                "or prompt method for new classes"
            )

    def details(self) -> dict[str, Any]:
        return self.model.facts["details"]

    # -- prediction ----------------------------------------------------------------------------

    def predict_features(self, features: Tensor) -> Prediction:
        """What ``predict`` answers, from image features (B, D)."""
        raise NotImplementedError

    def predict(self, images: Tensor) -> Prediction:
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


# Which data set keys a fit does not depend on: where it lies, and what it is tested on.
UNFITTED_KEYS = ("ROOT", "TARGET_DOMAINS", "TEST_CORRELATION")


def plain(node: Any) -> Any:
    """A configuration node as JSON values."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [plain(value) for value in node]
    return node
