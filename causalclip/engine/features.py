"""FeatureTrainer: what the methods fitted on frozen image features share; no gradient descent."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor

from causalclip.engine.base import CLIPTrainer
from causalclip.engine.checkpoint_file import read_checkpoint
from causalclip.engine.checkpoints import check_identity, checkpoint_path, load_state
from causalclip.engine.distributed import from_writer, wait
from causalclip.engine.fit import FitModule, FitT
from causalclip.engine.prediction import Prediction
from causalclip.report.json_types import plain
from causalclip.report.results import peak_memory_mb

# Which data set keys a fit does not depend on: where it lies, and what it is tested on.
UNFITTED_KEYS = ("ROOT", "TARGET_DOMAINS", "TEST_CORRELATION")


class FeatureTrainer(CLIPTrainer, Generic[FitT]):
    """A method fitted on CLIP's image features of the training images.

    A subclass sets `fit_class`, answers `fit` with one of it, and `predict_features` from
    `self.fitted`, just fitted or loaded. Images are seen through the test transform, because an
    augmented image has no feature to keep.
    """

    model_name = "fit"
    image_tower_untouched = True
    fit_class: type[FitT]
    model: FitModule[FitT]

    def build_method(self) -> None:
        """Register the fit that is to come."""
        self.model = FitModule(self.fit_class, self.device)
        self.register_model(self.model_name, self.model)

    # Fitting

    def fit(self) -> FitT:
        """What the training images say, as a `fit_class`.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
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
        """Fit, save and test.

        A finished fit of the same settings in the output folder is reused, as the family's
        trainers do; one of other settings is replaced.
        """
        start = time.perf_counter()
        reused = self._reuse()
        wait()  # until all have looked: what is written next is no earlier fit
        if not reused:
            # Of several processes all fit the same; the last bits are those of the one that writes.
            self.model.hold(from_writer(self.fit()), self.fitted_with())
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
        checkpoint = read_checkpoint(path)
        check_identity(checkpoint, self.checkpoint_identity(), path)
        load_state(self.model, checkpoint["state_dict"], path)
        if self.model.fitted_with == self.fitted_with():
            print(f"Fitted before with the same settings, nothing to fit: {path}")
            return True
        print(f"Fitted before with other settings, fitting again: {path}")
        return False

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """As in CheckpointTrainer; then `check_fit`.

        Raises:
            ValueError: a checkpoint of another method or backbone, or one `check_fit` refuses.
            FileNotFoundError: no checkpoint there.
        """
        super().load_model(directory, epoch)
        self.check_fit()

    @property
    def fitted_classnames(self) -> list[str]:
        """The classes that the fit has seen."""
        return self.model.fitted_with["classnames"]

    def require_same_classes(self) -> None:
        """For `check_fit` of a classifier without text, which knows the classes of its fit alone.

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

    # Prediction

    def predictor(self) -> Callable[[Tensor], Prediction]:
        """As in CLIPTrainer, under PREC amp too in fp32: what was fitted is no network."""
        return torch.autocast(self.device.type, enabled=False)(self.predict_features)
