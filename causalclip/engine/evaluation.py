"""Evaluate a trainer on a split: predictions, metrics, results.json and predictions.npz."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from causalclip.clip.texts import readable
from causalclip.clip.zeroshot import cosine_logits, text_features
from causalclip.data.catalogue import dataset_template
from causalclip.engine.draws import generators_kept
from causalclip.engine.feature_cache import batches, encoder_of
from causalclip.engine.loading import shown_by
from causalclip.engine.prediction import Evaluated, Prediction, Reading
from causalclip.metrics import classification_metrics
from causalclip.records.identity import ZeroShot, read_run
from causalclip.records.predictions import Predictions
from causalclip.records.results import Result, dataset_title, run_record

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer

MOST_IMAGES = 128  # for the zero-shot accuracy
Batch = tuple[Tensor, Tensor, Sequence[str]]
"""Images (B, 3, H, W) or features (B, E) on the device, labels (B,), paths."""


@torch.no_grad()
def evaluate(trainer: CLIPTrainer, split: str | None = None) -> float:
    """Evaluate on a split, write its results to OUTPUT_DIR and return the accuracy in per cent.

    `split` is test or val; None uses TEST.SPLIT. A validation pass that only selects a
    checkpoint writes no file.

    Raises:
        ValueError: the data set has no such split, or an empty one.
    """
    split = str(split or trainer.cfg.TEST.SPLIT)
    loader = split_loader(trainer, split)
    print(f"Evaluate on the *{split}* set")
    start = time.perf_counter()
    trainer.set_model_mode("eval")
    evaluated = collect(trainer, loader)
    seconds = time.perf_counter() - start
    trainer.evaluator.reset()
    trainer.evaluator.process(evaluated.prediction.main.probabilities, evaluated.labels)
    results = trainer.evaluator.evaluate()
    for key, value in results.items():
        trainer.write_scalar(f"{split}/{key}", value, trainer.epoch)
    if split == trainer.cfg.TEST.SPLIT:
        write_results(trainer, split, evaluated, seconds)
    return next(iter(results.values()))


def split_loader(trainer: CLIPTrainer, split: str) -> DataLoader:
    """Return the loader of a split.

    Raises:
        ValueError: there is no validation split.
    """
    if split != "val":
        return trainer.test_loader
    if trainer.val_loader is None:
        raise ValueError(
            f"{trainer.cfg.DATASET.NAME} has no validation split to evaluate on: use "
            "TEST.SPLIT test, and TEST.FINAL_MODEL last_step"
        )
    return trainer.val_loader


def collect(trainer: CLIPTrainer, loader: DataLoader) -> Evaluated:
    """Return the predictions for every image of a loader."""
    predict, parts = trainer.predictor(), []
    for inputs, labels, paths in split_batches(trainer, loader):
        with trainer.backbone.autocast():
            prediction = Prediction.joined([predict(inputs)])  # on the CPU: frees the GPU
        parts.append(Evaluated(prediction, labels.cpu(), tuple(map(str, paths))))
    return Evaluated.joined(parts)


def split_batches(trainer: CLIPTrainer, loader: DataLoader) -> Iterator[Batch]:
    """Yield the batches of a loader: features if `image_tower_untouched`, else images."""
    if not trainer.image_tower_untouched:
        for batch in tqdm(loader, desc="evaluate", leave=False, disable=None):
            images, labels = trainer.parse_batch_test(batch)
            yield images, labels, batch["impath"]
        return
    items = shown_by(loader).data_source
    features, labels = trainer.encoder.labelled(items, desc="evaluate")
    for rows in trainer.test_order(len(items)).split(trainer.cfg.DATALOADER.TEST.BATCH_SIZE):
        paths = [items[row].impath for row in rows.tolist()]
        yield features[rows].to(trainer.device), labels[rows], paths


# Results


def write_results(trainer: CLIPTrainer, split: str, evaluated: Evaluated, seconds: float) -> None:
    """Write results.json and predictions.npz of one evaluation to OUTPUT_DIR."""
    checkpointer = trainer.checkpointer
    record = run_record(trainer.cfg, classnames=trainer.classnames, split=split)
    record |= metrics_record(evaluated, parts_of(trainer, evaluated))
    add_conformal(trainer, record, evaluated)
    identity = read_run(Path(trainer.output_dir))
    record |= {
        "training": checkpointer.training_cost,
        "trained_on": checkpointer.trained_on,
        "trained_identity": checkpointer.trained_identity,
        "evaluation": {"seconds": seconds, "images": len(evaluated.labels)},
        "left_out": dict(getattr(trainer.dm.dataset, "left_out", {})),
        "details": trainer.details(),
        "data": identity.data if identity else None,
        "identity": identity.fingerprint if identity else None,
    }
    Predictions(evaluated.arrays()).write(trainer.output_dir)
    path = Result.of_record(record).write(trainer.output_dir)
    for name, value in _scalars(record).items():
        trainer.write_scalar(f"{split}/{name}", value, trainer.epoch)
    print(f"Results: {path}")


def parts_of(trainer: CLIPTrainer, evaluated: Evaluated) -> dict[str, Tensor]:
    """Return named subsets of the test set, as boolean rows (N,).

    `heldout` is the held-out part of the target domain. For a model that was trained on some of
    this run's classes, `base` contains the images of those classes and `open` all other images.
    """
    parts = {}
    if heldout := getattr(trainer.dm.dataset, "heldout_test", None):
        parts["heldout"] = torch.tensor([path in heldout for path in evaluated.paths])
    trained_on = trainer.checkpointer.trained_on
    if trained_on is not None and trained_on["dataset"] == dataset_title(trainer.cfg):
        trained = set(trained_on["classnames"])
        is_base = [name in trained for name in trainer.classnames]
        if any(is_base) and not all(is_base):
            parts["base"] = torch.tensor(is_base)[evaluated.labels]
            parts["open"] = ~parts["base"]
    return {name: rows for name, rows in parts.items() if rows.any()}


def metrics_record(evaluated: Evaluated, parts: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the metrics of every reading for results.json, on all N images and on parts (N,)."""
    prediction, labels = evaluated.prediction, evaluated.labels
    readings = prediction.distinct()
    whole = {reading: reading_metrics(reading, labels) for reading in readings}
    on_parts = {
        reading: {name: reading_metrics(reading, labels, rows) for name, rows in parts.items()}
        for reading in readings
    }
    return {
        "metrics": whole[prediction.main],
        "variants": {name: whole[reading] for name, reading in prediction.readings.items()},
        "parts": on_parts[prediction.main],
        "variant_parts": {name: on_parts[reading] for name, reading in prediction.readings.items()},
        "members": {
            name: [reading_metrics(member, labels) for member in members.each()]
            for name, members in prediction.members.items()
        },
    }


def reading_metrics(
    reading: Reading, labels: Tensor, rows: Tensor | slice = slice(None)
) -> dict[str, float]:
    """Return the metrics of a reading of N images with labels (N,), on the chosen rows."""
    return classification_metrics(
        reading.probabilities[rows], labels[rows], reading.uncertainty[rows]
    )


@torch.no_grad()
def mean_zero_shot_logit(trainer: Any, text: Tensor) -> float:
    """Return CLIP's mean logit over the plain training images and the classes of `text` (K, E)."""
    total, count = torch.zeros((), dtype=torch.double, device=trainer.device), 0
    size = trainer.cfg.DATALOADER.TEST.BATCH_SIZE
    for features in batches(trainer.encoder.items(trainer.dm.dataset.train_x), size):
        logits = trainer.backbone.classify(features.to(trainer.device), text)
        total, count = total + logits.sum(), count + logits.numel()
    return total.item() / count


def add_conformal(trainer: CLIPTrainer, record: dict[str, Any], evaluated: Evaluated) -> None:
    """Add coverage and size of conformal sets to the metrics, if TEST.CONFORMAL is set.

    The sets are calibrated on the validation split; the random generators keep their state.
    """
    alpha, dataset = trainer.cfg.TEST.get("CONFORMAL", 0.0), trainer.dm.dataset
    if not alpha:
        return
    if trainer.val_loader is None or dataset.val is dataset.test:
        print("No validation split to calibrate conformal sets on")
        return
    from causalclip.conformal import conformal_metrics

    with generators_kept():
        known = collect(trainer, trainer.val_loader)
    answers = {"": evaluated.prediction.main, **evaluated.prediction.readings}
    calibrating = {"": known.prediction.main, **known.prediction.readings}
    for name, reading in answers.items():
        metrics = record["variants"][name] if name else record["metrics"]
        metrics |= conformal_metrics(
            (calibrating[name].probabilities, known.labels),
            (reading.probabilities, evaluated.labels),
            alpha=alpha,
            seed=max(trainer.cfg.SEED, 0),  # a negative SEED means no seed
        )


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that are logged in addition to those of Dassl's evaluator."""
    own = {name: record["metrics"][name] for name in ("ece", "nll", "brier", "aurc")}
    return {**own, **{f"{k}/accuracy": m["accuracy"] for k, m in record["variants"].items()}}


# Zero-shot accuracy on training images


@torch.no_grad()
def measure_zero_shot(trainer: CLIPTrainer) -> ZeroShot | None:
    """Return the zero-shot accuracy on up to 128 training images, evenly spaced.

    None for a data set without training images, as test images must not be used. Features are kept
    in the feature cache; the random generators keep their state.
    """
    dataset, template = trainer.dm.dataset, dataset_template(trainer.cfg)
    images = dataset.train_x
    if images is dataset.test:  # a variant of ImageNet: no training images of its own
        return None
    rows = np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES).astype(int))
    items = [images[row] for row in rows.tolist()]
    texts = [template.replace("{}", readable(name)) for name in trainer.classnames]
    with generators_kept():
        # Small batches, so that the peak of memory is that of the training.
        features, labels = replace(encoder_of(trainer), batch_size=16).labelled(
            items, desc="zero-shot"
        )
        logits = cosine_logits(features, text_features(trainer.clip, texts, cut=True), 1.0)
    accuracy = (logits.argmax(-1) == labels).double().mean().item()
    return ZeroShot(round(100 * accuracy, 2), len(items), len(texts))
