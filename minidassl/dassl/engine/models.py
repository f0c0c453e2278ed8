"""The models of a trainer by name: their modes, rates, steps, and their checkpoints as Dassl's."""

from __future__ import annotations

import os.path as osp
from collections import OrderedDict
from typing import Any

import torch
from dassl.utils import (
    CheckpointError,
    last_checkpoint_name,
    load_checkpoint,
    resume_from_file,
    save_checkpoint,
    tolist_if_not,
)
from torch import Tensor, nn


class NamedModels:
    """What a trainer trains, by name: each model with its optimizer and its schedule.

    Every `names` is one name, several, or None for all of them.
    """

    epoch: int  # where the training is, counted from 0; set by the loop
    batch_idx: int

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()

    def register_model(
        self, name: str = "model", model: Any = None, optim: Any = None, sched: Any = None
    ) -> None:
        """Register what is trained, saved and stepped under `name`.

        Raises:
            AttributeError: before `super().__init__()`.
            ValueError: a name that is taken.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("Cannot assign model before super().__init__() call")
        if name in self._models:
            raise ValueError(f"Found duplicate model names: {name!r} is registered already")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """Return all registered names, or `names` as a list once they are checked.

        Raises:
            ValueError: a name that is not registered.
        """
        known = list(self._models)
        if names is None:
            return known
        names = tolist_if_not(names)
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is not a registered model, got {', '.join(known)}")
        return names

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Put registered models into "train" or "eval" ("test") mode.

        Raises:
            KeyError: another mode.
        """
        if mode not in ("train", "eval", "test"):
            raise KeyError(f"mode must be train, eval or test, got {mode!r}")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Step the schedules; the loop leaves this to the trainer's forward_backward."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """Return the learning rate of the first (named) model's first group."""
        name = self.get_model_names(names)[0]
        return self._optims[name].param_groups[0]["lr"]

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        """Clear the gradients."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        """Backpropagate a loss (...) of one element.

        Raises:
            FloatingPointError: a loss that is infinite or NaN.
        """
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        """Step the optimizers."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: Tensor, names: str | list[str] | None = None) -> None:
        """Clear gradients, backpropagate a loss (...) of one element, step.

        Raises:
            FloatingPointError: a loss that is infinite or NaN.
        """
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def detect_anomaly(self, loss: Tensor) -> None:
        """Check a loss of any shape (...).

        Raises:
            FloatingPointError: it is infinite or NaN somewhere; names epoch and batch.
        """
        if not torch.isfinite(loss).all():
            raise FloatingPointError(f"Loss is infinite or NaN!{self._position()}")

    def _position(self) -> str:
        """Where in the training we are, for messages; nothing outside of it."""
        if not hasattr(self, "batch_idx"):
            return ""
        return f" (epoch {self.epoch + 1}, batch {self.batch_idx + 1})"

    # Checkpoints

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write directory/<name>/model.pth.tar-<epoch + 1> for every registered model.

        Raises:
            OSError: it cannot be written; earlier files stay whole.
        """
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            save_checkpoint(
                {
                    "state_dict": self._models[name].state_dict(),
                    "epoch": epoch + 1,
                    "optimizer": optim.state_dict() if optim is not None else None,
                    "scheduler": sched.state_dict() if sched is not None else None,
                    "val_result": float(val_result) if val_result is not None else None,
                },
                osp.join(directory, name),
                is_best=is_best,
                model_name=model_name,
            )

    def resume_model_if_exist(self, directory: str) -> int:
        """Restore all models from the last checkpoint in `directory`; return the epochs done.

        As in Dassl that is weights, optimizer and schedule: the random draws are other ones than
        those of a run without a break. 0 where there is no checkpoint.

        Raises:
            CheckpointError: a damaged file, one learned for other class names, or models that
                stand at different epochs.
        """
        names = self.get_model_names()
        if not names or not all(
            osp.exists(osp.join(directory, name, "checkpoint")) for name in names
        ):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        # The last model is written last: what its pointer names exists for the others too.
        file_name = last_checkpoint_name(osp.join(directory, names[-1]))
        epochs = [
            resume_from_file(
                osp.join(directory, name, file_name),
                self._models[name],
                self._optims[name],
                self._scheds[name],
            )
            for name in names
        ]
        if len(set(epochs)) > 1:
            raise CheckpointError(f"the models in {directory} stand at different epochs: {epochs}")
        return epochs[0]

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load all models for evaluation: model.pth.tar-<epoch>, or model-best.pth.tar.

        Raises:
            FileNotFoundError: there is no such file.
            RuntimeError: its tensors do not fit, by name or by shape.
        """
        if not directory:
            print(
                "Note that load_model() is skipped as no pretrained model is given "
                "(ignore this if it's done on purpose)"
            )
            return
        model_file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            path = osp.join(directory, name, model_file)
            if not osp.exists(path):
                raise FileNotFoundError(f"No model at {path}")
            self._load_one(name, path)

    def _load_one(self, name: str, path: str) -> None:
        checkpoint = load_checkpoint(path)
        result = checkpoint.get("val_result")  # None in checkpoints of the last epoch
        shown = "None" if result is None else f"{result:.1f}"
        print(f"Load {path} to {name} (epoch={checkpoint['epoch']}, val_result={shown})")
        self._models[name].load_state_dict(checkpoint["state_dict"])
