"""What every trainer does on a split: ask, measure, and write results.json and predictions.npz."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from causalclip.engine.checkpoints import CheckpointTrainer
from causalclip.engine.distributed import from_writer, is_writer, own_batches, to_writer
from causalclip.engine.prediction import Evaluated, Prediction, Reading
from causalclip.metrics import classification_metrics
from causalclip.report.predictions import Predictions
from causalclip.report.results import Result, run_record
from causalclip.runs.identity import recorded_fingerprint


class EvaluatedTrainer(CheckpointTrainer):
    """A trainer that is measured by what its `predictor` answers about the images of a split."""

    def predictor(self) -> Callable[[Tensor], Prediction]:
        """What answers about the batches of one evaluation, as `test_batches` gives them.

        It holds what is the same for all of them.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError

    def autocast(self) -> contextlib.AbstractContextManager:
        """The precision that `predictor` answers in; here nothing changes it."""
        return contextlib.nullcontext()

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on a split, write results.json and predictions.npz, return the accuracy.

        Raises:
            ValueError: the data set has no such split, or an empty one.
        """
        chosen: str = split or self.cfg.TEST.SPLIT
        loader = self._loader(chosen)
        print(f"Evaluate on the *{chosen}* set")
        start = time.perf_counter()
        self.set_model_mode("eval")
        evaluated = self.collect(loader)
        seconds = time.perf_counter() - start
        return from_writer(self._judged(chosen, evaluated, seconds) if evaluated else 0.0)

    def _judged(self, split: str, evaluated: Evaluated, seconds: float) -> float:
        self.evaluator.reset()
        self.evaluator.process(evaluated.prediction.main.probabilities, evaluated.labels)
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        # A val pass that only selects a checkpoint leaves no file.
        if split == self.cfg.TEST.SPLIT:
            self.report(split, evaluated, seconds)
        return next(iter(results.values()))

    def init_writer(self, log_dir: str) -> None:
        """TensorBoard's, as Dassl's; of several processes, the one that writes has it."""
        if is_writer():
            super().init_writer(log_dir)

    def _loader(self, split: str) -> DataLoader:
        if split == "val":
            if self.val_loader is None:
                raise ValueError(
                    f"{self.cfg.DATASET.NAME} has no validation split to evaluate on: use "
                    "TEST.SPLIT test, and TEST.FINAL_MODEL last_step"
                )
            return self.val_loader
        return self.test_loader

    def collect(self, loader: DataLoader) -> Evaluated | None:
        """What the method answers about every image of a loader, batch by batch.

        Several processes share the batches; the one that writes has them all, the others None.
        """
        predict, answers = self.predictor(), []
        for inputs, labels, paths in self.test_batches(loader):
            with self.autocast():
                prediction = Prediction.joined([predict(inputs)])  # off the GPU at once
            answers.append(Evaluated(prediction, labels.cpu(), tuple(map(str, paths))))
        everyones = to_writer(answers)
        return None if everyones is None else Evaluated.joined(everyones)

    def test_batches(self, loader: DataLoader) -> Iterator[tuple[Tensor, Tensor, Sequence[str]]]:
        """This process's batches (B, 3, H, W) of a loader, on the device; labels (B,) and paths."""
        batches = own_batches(loader)
        for batch in tqdm(batches, desc="evaluate", leave=False, disable=not is_writer()):
            images, labels = self.parse_batch_test(batch)
            yield images, labels, batch["impath"]

    def report(self, split: str, evaluated: Evaluated, seconds: float) -> None:
        """Write results.json and predictions.npz of one evaluation into OUTPUT_DIR."""
        record = run_record(self.cfg, classnames=self.classnames, split=split)
        record.update(metrics_record(evaluated, self.parts(evaluated)))
        record["training"] = self.training_cost
        record["trained_on"] = self.trained_on
        record["evaluation"] = {"seconds": seconds, "images": len(evaluated.labels)}
        record["details"] = self.details()
        record["identity"] = recorded_fingerprint(self.output_dir)
        Predictions(evaluated.arrays()).write(self.output_dir)
        path = Result.of_record(record).write(self.output_dir)
        for name, value in scalars_of(record).items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        print(f"Results: {path}")

    def parts(self, evaluated: Evaluated) -> dict[str, Tensor]:
        """Named subsets of the test set, boolean rows (N,), that are reported beside the whole.

        They are `heldout` of the target domain; `base` and `open` for a model that was trained on
        some of this run's classes.
        """
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


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers for TensorBoard beside those that Dassl's evaluator writes there.

    How honest the method's own reading is, and the accuracy of every other reading.
    """
    own = {name: record["metrics"][name] for name in ("ece", "nll", "brier", "aurc")}
    return {**own, **{f"{k}/accuracy": m["accuracy"] for k, m in record["variants"].items()}}


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
