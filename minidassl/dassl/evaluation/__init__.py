"""Evaluators: the metrics that test() computes and prints."""

from __future__ import annotations

import os.path as osp
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from dassl.utils import Registry, mkdir_if_missing
from torch import Tensor

__all__ = ["EVALUATOR_REGISTRY", "Classification", "build_evaluator"]

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: Any, **kwargs: Any) -> Any:
    """Build the evaluator that TEST.EVALUATOR names; raise UnknownNameError if there is none."""
    evaluator = EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)
    if cfg.VERBOSE:
        print(f"Loading evaluator: {cfg.TEST.EVALUATOR}")
    return evaluator(cfg, **kwargs)


@EVALUATOR_REGISTRY.register()
class Classification:
    """Accuracy, error rate and macro F1 over the classes that have images, in per cent."""

    def __init__(self, cfg: Any, lab2cname: dict[int, str] | None = None, **_: Any) -> None:
        self.cfg = cfg
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs lab2cname, got None")
        self._lab2cname = lab2cname
        self.reset()

    def reset(self) -> None:
        """Discard all batches."""
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Add class scores `mo` (B, K) and labels `gt` (B,); raise FloatingPointError for NaN."""
        if torch.isnan(mo).any():
            raise FloatingPointError("Model output holds NaN: its accuracy would mean nothing")
        self._y_pred.extend(mo.max(dim=1).indices.tolist())
        self._y_true.extend(gt.tolist())

    def evaluate(self) -> OrderedDict:
        """Print and return accuracy, error_rate, macro_f1 (and perclass_accuracy)."""
        if not self._y_true:
            raise ValueError("nothing to evaluate: no batch was processed")
        results = self._totals()
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._per_class()
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion_matrix()
        return results

    def _totals(self) -> OrderedDict:
        from sklearn.metrics import f1_score  # here, because the import is slow

        total = len(self._y_true)
        correct = sum(t == p for t, p in zip(self._y_true, self._y_pred, strict=True))
        accuracy = 100.0 * correct / total
        macro_f1 = 100.0 * f1_score(
            self._y_true, self._y_pred, average="macro", labels=np.unique(self._y_true)
        )
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {accuracy:.1f}%\n"
            f"* error: {100.0 - accuracy:.1f}%\n"
            f"* macro_f1: {macro_f1:.1f}%"
        )
        return OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=float(macro_f1))

    def _per_class(self) -> float:
        print("=> per-class result")
        labels, predictions = np.array(self._y_true), np.array(self._y_pred)
        names = self._lab2cname or {}  # not None, see __init__
        accuracies = []
        for label in np.unique(labels):
            hits = predictions[labels == label] == label
            accuracies.append(100.0 * hits.mean())
            print(
                f"* class: {label} ({names[int(label)]})\t"
                f"total: {len(hits):,}\t"
                f"correct: {hits.sum():,}\t"
                f"acc: {accuracies[-1]:.1f}%"
            )
        mean = float(np.mean(accuracies))
        print(f"* average: {mean:.1f}%")
        return mean

    def _save_confusion_matrix(self) -> None:
        """Write cmat.pt, a row-normalised tensor: rows are true classes, columns predicted ones."""
        from sklearn.metrics import confusion_matrix

        matrix = confusion_matrix(self._y_true, self._y_pred, normalize="true")
        mkdir_if_missing(self.cfg.OUTPUT_DIR)
        path = osp.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        torch.save(torch.from_numpy(matrix), path)
        print(f"Confusion matrix is saved to {path}")
