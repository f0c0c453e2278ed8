"""Predictor: a trained run that answers about pictures, as its evaluation would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import causalclip.plugin  # noqa: F401  (before the first import of dassl)

# isort: split
from causalclip.engine.base import CLIPTrainer
from causalclip.engine.prediction import Evaluated, Prediction
from causalclip.predict.abstain import Threshold, threshold_for
from causalclip.predict.answer import Answer, answers
from causalclip.predict.pictures import Broken, Source, found, shown
from causalclip.predict.trained import read_result, trained
from causalclip.report.predictions import PREDICTIONS_FILE, Predictions


class Predictor:
    """The method of a finished run, with what it learned and its evaluation's transform.

    Example:
        >>> predictor = Predictor.load("output/first")
        >>> answer = predictor("my.png")[0]
        >>> print(answer.classname, answer.probability, answer.uncertainty)
    """

    def __init__(self, trainer: CLIPTrainer, folder: str | Path) -> None:
        """Answer by a trainer that holds what the run in `folder` learned; `load` makes both."""
        self.trainer = trainer
        self.folder = Path(folder)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        classes: Sequence[str] | None = None,
        backbone: str = "",
        data: str = "",
    ) -> Predictor:
        """The predictor of the run in `folder`; its data set need not be there.

        Args:
            folder: a run's output folder.
            classes: K class names in place of the run's, where the method can name others.
            backbone: a file of the run's CLIP that lies elsewhere now.
            data: the folder of the data sets, for `threshold` alone.

        Raises:
            FileNotFoundError: no results.json, no checkpoint, or no weights of the backbone.
            ValueError: another backbone, class names given twice or that the method cannot take,
                or both `classes` and `data`.
        """
        if classes is not None and data:
            raise ValueError("a data set has the run's classes: give other classes or data")
        return cls(trained(folder, classes=classes, backbone=backbone, data=data), folder)

    @property
    def classnames(self) -> list[str]:
        """The K classes it tells apart."""
        return self.trainer.classnames

    @property
    def batch_size(self) -> int:
        """How many pictures go through the tower at a time: the evaluation's number."""
        return self.trainer.cfg.DATALOADER.TEST.BATCH_SIZE

    # Answering

    def __call__(self, images: Source | Iterable[Source]) -> list[Answer]:
        """An answer a picture, in order.

        Args:
            images: paths, folders and pictures of Pillow's, or one of them.

        Raises:
            FileNotFoundError: a path that is not there.
            ValueError: a file that is no image, or no picture at all.
            OSError: a picture that cannot be read.
        """
        single = isinstance(images, (str, PathLike, Image.Image))
        answered = []
        for answer in self.stream(found([images] if single else images)):
            if isinstance(answer, Broken):
                raise OSError(f"cannot read the image {answer.image}: {answer.reason}")
            answered.append(answer)
        return answered

    def stream(self, images: Iterable[Source]) -> Iterator[Answer | Broken]:
        """Answers as soon as a batch is full, in order; what is broken comes in its place."""
        transform = self.trainer.encoder.transform
        for batch in shown(images, transform, batch_size=self.batch_size):
            whole = [(name, x) for name, x in batch if isinstance(x, Tensor)]
            answered = iter(self._answers(whole))
            for _, x in batch:
                yield x if isinstance(x, Broken) else next(answered)

    def _answers(self, whole: Sequence[tuple[str, Tensor]]) -> list[Answer]:
        if not whole:
            return []
        names, tensors = zip(*whole, strict=True)
        return answers(self.prediction(torch.stack(tensors)), names, self.classnames)

    @torch.no_grad()
    def prediction(self, images: Tensor) -> Prediction:
        """Every reading of a batch (B, 3, R, R) behind the transform, on the CPU."""
        return Prediction.joined([self.differentiable(images)])

    def differentiable(self, images: Tensor) -> Prediction:
        """As `prediction`, on the device, with a graph if there is one to the image tower."""
        with self.trainer.autocast():
            return self._predict(self.inputs(images))

    def inputs(self, images: Tensor) -> Tensor:
        """What the method reads of images (B, 3, R, R): themselves, or their features (B, E)."""
        if self.trainer.image_tower_untouched:
            return self.trainer.encoder.encode(images).float()
        return images.to(self.trainer.device)

    @cached_property
    def _predict(self):  # noqa: ANN202 (as CLIPTrainer.predictor)
        """It holds the class texts, which are encoded once."""
        return self.trainer.predictor()

    # Abstaining

    def threshold(self, risk: float) -> Threshold:
        """The uncertainty up to which at most `risk` per cent of the validation answers are wrong.

        Raises:
            ValueError: other classes than the run's, no predictions of a validation split, or a
                risk that no threshold keeps.
        """
        return threshold_for(*self._validation(), risk=risk)

    def _validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Uncertainty (N,) of the validation split, and whether the answers were right (N,)."""
        result = read_result(self.folder)
        if self.classnames != result.classnames:
            raise ValueError("no risk is known of other classes than those of the validation split")
        recorded = self.folder / PREDICTIONS_FILE
        if result.split == "val" and recorded.is_file():
            found = Predictions.read(recorded)
            right = found.arrays["prediction"] == found.arrays["label"]
            return found.uncertainty(), right
        if self.trainer.val_loader is None:
            raise ValueError(
                f"a risk is chosen on validation predictions, and {self.folder} has those of its "
                f"{result.split} split alone: give the folder of its data set, {result.dataset}, "
                "with --data, if it has a validation split"
            )
        with torch.no_grad():  # alone, so this process has what all have seen
            seen = cast(Evaluated, self.trainer.collect(self.trainer.val_loader))
        main = seen.prediction.main
        return main.uncertainty.numpy(), (main.probabilities.argmax(-1) == seen.labels).numpy()
