"""Predictor: predict single images with a trained run, as the run's evaluation does."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

import causalclip.plugin  # noqa: F401  (before the first import of dassl)

# isort: split
from causalclip.clip.texts import readable
from causalclip.engine.data import build_seeded_dataset
from causalclip.engine.evaluation import collect
from causalclip.engine.loading import shown_by
from causalclip.engine.prediction import Prediction
from causalclip.metrics import classification_metrics
from causalclip.predict.answers import Answer, Threshold, answers_of, threshold_for
from causalclip.predict.hub import local_folder, push_to_hub, save_pretrained
from causalclip.predict.pictures import (
    BrokenImage,
    ImageSource,
    find_images,
    intact,
    load_batches,
)
from causalclip.predict.trained import load_trainer, read_result
from causalclip.records.identity import read_zero_shot
from causalclip.records.predictions import PREDICTIONS_FILE, Predictions
from causalclip.records.results import RESULTS_FILE
from causalclip.runs.configuration import check_names, merge_pairs
from causalclip.runs.data_source import resolve_data

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer
    from causalclip.predict.explain import Explanation, MapKind


class Predictor:
    """The trained method of a finished run, with the image transform of its evaluation.

    Example:
        >>> predictor = Predictor.load("output/first")
        >>> answer = predictor("my.png")[0]
        >>> print(answer.classname, answer.probability, answer.uncertainty)
    """

    def __init__(self, trainer: CLIPTrainer, folder: str | Path) -> None:
        """Wrap a trainer that has loaded the model of the run in `folder`; see `load`."""
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
        trust_torchscript: bool = False,
    ) -> Predictor:
        """Load the run in `folder`; its data set is not needed.

        Args:
            folder: a run's output folder, or a model's `owner/name` on the Hugging Face Hub.
            classes: K class names to use instead of the run's, if the method supports others.
            backbone: the file of the run's CLIP, if it was moved.
            data: the folder of the data sets; `threshold` and `evaluate` may need the run's data.
            trust_torchscript: run a TorchScript backbone that OpenAI did not release.

        Raises:
            FileNotFoundError: no results.json, no checkpoint, or no weights of the backbone.
            ValueError: another backbone, class names given twice or that the method cannot take,
                or both `classes` and `data`.
            UserError: the hub has no such model, or does not answer.
        """
        folder = local_folder(folder)
        trainer = load_trainer(folder, classes, backbone, data, trust_torchscript)
        return cls(trainer, folder)

    @property
    def classnames(self) -> list[str]:
        """The K class names."""
        return self.trainer.classnames

    @property
    def warning(self) -> str:
        """A warning if the run's CLIP does not know the classes; else, or if unknown, empty."""
        zero_shot = read_zero_shot(self.folder)
        if zero_shot is None or self.classnames != read_result(self.folder).classnames:
            return ""
        return zero_shot.warning

    @property
    def batch_size(self) -> int:
        """Number of images per batch in the evaluation."""
        return self.trainer.cfg.DATALOADER.TEST.BATCH_SIZE

    def __call__(self, images: ImageSource | Iterable[ImageSource]) -> list[Answer]:
        """Return one answer per image, in order.

        Args:
            images: paths, folders, PIL images and arrays, or one of them. An array is an image or
                a batch: NumPy (H, W, 3) uint8, or torch (3, H, W) uint8 or floats in [0, 1].

        Raises:
            FileNotFoundError: a path that does not exist.
            ValueError: a file or an array that is no image, or no image at all.
            TypeError: neither a path, a PIL image nor an array.
            OSError: an image that cannot be read.
        """
        if isinstance(images, str | np.ndarray | Tensor) or not isinstance(images, Iterable):
            images = [images]
        return [intact(answer) for answer in self.stream(find_images(images))]

    def stream(self, images: Iterable[ImageSource]) -> Iterator[Answer | BrokenImage]:
        """Yield the answers in order, batch by batch; a broken image in place of its answer."""
        transform = self.trainer.encoder.transform
        for batch in load_batches(images, transform, batch_size=self.batch_size):
            paths = [path for path, x in batch if isinstance(x, Tensor)]
            answers: Iterator[Answer] = iter(())
            if tensors := [x for _, x in batch if isinstance(x, Tensor)]:
                prediction = self.prediction(torch.stack(tensors))
                answers = iter(answers_of(prediction, paths, self.classnames))
            for _, x in batch:
                yield x if isinstance(x, BrokenImage) else next(answers)

    def evaluate(
        self,
        data: str | PathLike | None = None,
        *,
        split: str = "test",
        root: str | PathLike = "",
        settings: Mapping[str, Any] | None = None,
    ) -> dict[str, float]:
        """Return the metrics on all images of a split; see `classification_metrics`.

        Args:
            data: a data set as in `causalclip.train`; None: the run's own, for a predictor that
                `train` returned or that was loaded with `data`.
            split: train, val or test.
            root: the folder of the registered data sets; empty: $DATA, else data/.
            settings: further settings by key, for example {"DATASET.TARGET_DOMAINS": ["sketch"]}.

        Raises:
            UserError: no such data set, or a wrong setting.
            ValueError: a split without images, or a class that this predictor does not have.
        """
        dataset, name = self.dataset(data, root, settings)
        items = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}.get(split)
        if not items:
            hint = "" if data else ": name its data set by `data`"
            raise ValueError(f"no images of {name} in the split {split!r}{hint}")
        labels = {readable(classname): k for k, classname in enumerate(self.classnames)}
        if unknown := {item.classname for item in items if readable(item.classname) not in labels}:
            raise ValueError(
                f"{name} has classes that the predictor has not, {', '.join(sorted(unknown)[:5])}: "
                "Predictor.load(folder, classes=[...]) takes other names"
            )
        answers = self([item.impath for item in items])
        return classification_metrics(
            np.stack([answer.probabilities for answer in answers]),
            np.array([labels[readable(item.classname)] for item in items]),
            np.array([answer.uncertainty for answer in answers]),
        )

    def dataset(
        self,
        data: str | PathLike | None,
        root: str | PathLike = "",
        settings: Mapping[str, Any] | None = None,
    ) -> tuple[Any, str]:
        """Return a data set and its name; arguments and errors are those of `evaluate`."""
        if data is None:
            return self.trainer.dm.dataset, self.trainer.cfg.DATASET.NAME
        source = resolve_data(data, root)
        pairs = {
            "DATASET.NUM_SHOTS": -1,
            "DATASET.SUBSAMPLE_CLASSES": "all",
            "DATASET.SOURCE_DOMAINS": [],
            "DATASET.TARGET_DOMAINS": [],
            **source.settings,
            **(settings or {}),
        }
        cfg = self.trainer.cfg.clone()
        cfg.defrost()
        merge_pairs(cfg, pairs)
        cfg.freeze()
        check_names(cfg)
        return build_seeded_dataset(cfg), source.name

    def batches(self, images: Iterable[ImageSource]) -> Iterator[Tensor]:
        """Yield batches of transformed images (B, 3, R, R); errors are those of `__call__`."""
        transform = shown_by(self.trainer.test_loader).transform
        loaded = load_batches(find_images(images), transform, batch_size=self.batch_size)
        for batch in loaded:
            yield torch.stack([intact(x) for _, x in batch])

    def detect(
        self, foreign: str | PathLike, *, root: str | PathLike = "", gl_mcm: bool = False
    ) -> dict[str, dict[str, float]]:
        """Return how well foreign images are detected; see `causalclip.predict.detect.detect`."""
        from causalclip.predict.detect import detect

        return detect(self, foreign, root=root, gl_mcm=gl_mcm)

    def explain(
        self, image: ImageSource, *, classname: str = "", kind: MapKind = "gradient"
    ) -> Explanation:
        """Return which patches speak for a class; see `causalclip.predict.explain.explain`."""
        from causalclip.predict.explain import explain

        return explain(self, image, classname=classname, kind=kind)

    def save(self, folder: str | PathLike) -> None:
        """Copy the run to a new folder, from which `Predictor.load` reads it.

        Other class names than the run's and the weights of the backbone are not copied.

        Raises:
            FileExistsError: the folder exists.
        """
        shutil.copytree(self.folder, folder)

    def save_pretrained(self, folder: str | PathLike) -> None:
        """Write the learned weights to share them: safetensors, results, and a model card.

        `from_pretrained` reads the folder. It contains neither the CLIP's weights nor paths of this
        machine, except for paths in the recorded command.

        Raises:
            ValueError: a method that reads a projection file.
        """
        save_pretrained(self, folder)

    @classmethod
    def from_pretrained(
        cls, name: str | PathLike, *, revision: str | None = None, **options: Any
    ) -> Predictor:
        """Load a folder that `save_pretrained` wrote, or owner/name from the Hugging Face Hub.

        Only JSON and safetensors are downloaded.

        Args:
            name: the folder or the model's name.
            revision: branch, tag or commit on the hub.
            **options: options of `load`; its errors are raised too.
        """
        return cls.load(local_folder(name, revision), **options)

    def push_to_hub(
        self, name: str, *, private: bool | None = None, token: str | None = None
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face Hub; return its address.

        Args:
            name: owner/name.
            private: whether a new repository is private; None: the owner's default.
            token: the owner's access token; None: the token of `hf auth login`.

        Raises:
            UserError: huggingface_hub is not installed.
            ValueError: as `save_pretrained`.
        """
        return push_to_hub(self, name, private=private, token=token)

    def __repr__(self) -> str:
        cfg = self.trainer.cfg
        what = f"{cfg.TRAINER.NAME} on {cfg.MODEL.BACKBONE.NAME}, {len(self.classnames)} classes"
        return f"Predictor({what}, {str(self.folder)!r})"

    def _repr_html_(self) -> str:
        cfg, names = self.trainer.cfg, ", ".join(self.classnames[:10])
        data = cfg.DATASET
        rows = {
            "method": cfg.TRAINER.NAME,
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "data": data.get("PATH") or data.get("TABLE") or data.NAME,
            "shots": data.NUM_SHOTS if data.NUM_SHOTS > 0 else "all",
            f"{len(self.classnames)} classes": names + ", ..." * (len(self.classnames) > 10),
            "folder": str(self.folder),
        }
        if (self.folder / RESULTS_FILE).is_file():
            result = read_result(self.folder)
            rows[f"accuracy ({result.split})"] = f"{result.metrics['accuracy']:.1f} %"
            rows["calibration error"] = f"{result.metrics['ece']:.1f} %"
        if self.warning:
            rows["warning"] = self.warning
        return str(tabulate(rows.items(), tablefmt="html", disable_numparse=True))

    @torch.no_grad()
    def prediction(self, images: Tensor) -> Prediction:
        """Return the prediction for transformed images (B, 3, R, R), on the CPU."""
        return Prediction.joined([self.differentiable(images)])

    def differentiable(self, images: Tensor) -> Prediction:
        """Return `prediction` on the trainer's device, with its autograd graph if there is one."""
        with self.trainer.backbone.autocast():
            return self._predict(self.inputs(images))

    def inputs(self, images: Tensor) -> Tensor:
        """Return the method's input: the images (B, 3, R, R), or their features (B, E)."""
        if self.trainer.image_tower_untouched:
            return self.trainer.encoder.encode(images).float()
        return images.to(self.trainer.device)

    @cached_property
    def _predict(self):  # noqa: ANN202 (as CLIPTrainer.predictor)
        return self.trainer.predictor()  # keeps the class texts, which are encoded once

    def threshold(self, risk: float) -> Threshold:
        """Return the uncertainty above which to abstain for at most `risk` % errors in validation.

        Raises:
            ValueError: other classes than the run's, no predictions of a validation split, or a
                risk that no threshold keeps.
        """
        return threshold_for(*self._validation(), risk=risk)

    def _validation(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the uncertainty of the validation images (N,), and which are correct (N,)."""
        result = read_result(self.folder)
        if self.classnames != result.classnames:
            raise ValueError("no risk is known of other classes than those of the validation split")
        path = self.folder / PREDICTIONS_FILE
        if result.split == "val" and path.is_file():
            recorded = Predictions.read(path)
            return recorded.uncertainty(), recorded.arrays["prediction"] == recorded.arrays["label"]
        if self.trainer.val_loader is None:
            raise ValueError(
                f"a risk is chosen on validation predictions, and {self.folder} has those of its "
                f"{result.split} split alone: give the folder of its data set, {result.dataset}, "
                "with --data, if it has a validation split"
            )
        with torch.no_grad():
            evaluated = collect(self.trainer, self.trainer.val_loader)
        main = evaluated.prediction.main
        return main.uncertainty.numpy(), (main.probabilities.argmax(-1) == evaluated.labels).numpy()
