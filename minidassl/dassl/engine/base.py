"""TrainerBase: the loop over epochs, the registered models and their checkpoints, as in Dassl."""

from __future__ import annotations

import os.path as osp
from collections import OrderedDict
from typing import Any

import torch
from dassl.utils import load_checkpoint, save_checkpoint
from dassl.utils.torchtools import last_checkpoint_name, resume_from_checkpoint
from torch import Tensor, nn

Names = str | list[str] | None
"""The name of a model, several names, or None for all models."""


class TrainerBase:
    """The loop over epochs, registered models with optimizer and schedule, and TensorBoard."""

    epoch: int  # the current epoch, counted from 0; set by the loop
    batch_idx: int
    _writer: Any = None

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()

    # The loop

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Run all epochs from start_epoch (before_train may change it) to max_epoch."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self) -> None:
        """Do nothing (hook)."""

    def after_train(self) -> None:
        """Do nothing (hook)."""

    def before_epoch(self) -> None:
        """Do nothing (hook)."""

    def after_epoch(self) -> None:
        """Do nothing (hook)."""

    def run_epoch(self) -> None:
        """Train one epoch."""
        raise NotImplementedError

    def test(self) -> float:
        """Evaluate the models."""
        raise NotImplementedError

    def forward_backward(self, batch: dict) -> dict | None:
        """Train one step; return the numbers to report."""
        raise NotImplementedError

    # TensorBoard

    def init_writer(self, log_dir: str) -> None:
        """Open a TensorBoard writer, if TensorBoard is installed."""
        if self._writer is not None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print("TensorBoard is not installed: no event files are written")
            return
        print(f"Initialize tensorboard (log_dir={log_dir})")
        self._writer = SummaryWriter(log_dir=log_dir)

    def close_writer(self) -> None:
        """Close the TensorBoard writer."""
        if self._writer is not None:
            self._writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Write one number to TensorBoard, if a writer is open (it is during training only)."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    # Models

    def register_model(
        self, name: str = "model", model: Any = None, optim: Any = None, sched: Any = None
    ) -> None:
        """Register a model, its optimizer and its schedule under `name`, which must be new."""
        if "_models" not in self.__dict__:
            raise AttributeError("Cannot assign model before super().__init__() call")
        if name in self._models:
            raise ValueError(f"Found duplicate model names: {name!r} is registered already")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: Names = None) -> list[str]:
        """Return all registered names, or `names` as a list; raise ValueError for unknown ones."""
        known = list(self._models)
        names = [names] if isinstance(names, str) else known if names is None else names
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is not a registered model, got {', '.join(known)}")
        return names

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """Put registered models into "train" or "eval" ("test") mode; raise KeyError for others."""
        if mode not in ("train", "eval", "test"):
            raise KeyError(f"mode must be train, eval or test, got {mode!r}")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names: Names = None) -> None:
        """Step the schedules; the loop leaves this to the trainer's forward_backward."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: Names = None) -> float:
        """Return the learning rate of the first parameter group of the first model in `names`."""
        name = self.get_model_names(names)[0]
        return self._optims[name].param_groups[0]["lr"]

    def model_zero_grad(self, names: Names = None) -> None:
        """Clear the gradients."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        """Backpropagate a loss (...) of one element; raise FloatingPointError if not finite."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        """Step the optimizers."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: Tensor, names: Names = None) -> None:
        """Clear gradients, call `model_backward` on a loss (...) of one element, and step."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raise FloatingPointError if a loss of any shape (...) is infinite or NaN somewhere."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError(f"Loss is infinite or NaN!{self._position()}")

    def _position(self) -> str:
        """Return epoch and batch for error messages; empty outside of training."""
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
            OSError: a file cannot be written; earlier files stay intact.
        """
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": self._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": None if optim is None else optim.state_dict(),
                "scheduler": None if sched is None else sched.state_dict(),
                "val_result": None if val_result is None else float(val_result),
            }
            save_checkpoint(state, osp.join(directory, name), is_best, model_name=model_name)

    def resume_model_if_exist(self, directory: str) -> int:
        """Restore all models from the last checkpoint in `directory`; return the epochs done.

        As in Dassl, this restores weights, optimizer and schedule, not the random generators: the
        random draws differ from those of an uninterrupted run. Return 0 without a checkpoint.

        Raises:
            ValueError: a damaged file, one learned for other class names, or models at
                different epochs.
        """
        names = self.get_model_names()
        folders = [osp.join(directory, name) for name in names]
        if not folders or not all(osp.exists(osp.join(path, "checkpoint")) for path in folders):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        # The last model is saved last: the checkpoint that its folder names exists for all models.
        file_name = last_checkpoint_name(folders[-1])
        epochs = [
            resume_from_checkpoint(
                folder, self._models[name], self._optims[name], self._scheds[name], file_name
            )
            for folder, name in zip(folders, names, strict=True)
        ]
        if len(set(epochs)) > 1:
            raise ValueError(f"the models in {directory} stand at different epochs: {epochs}")
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
            checkpoint = load_checkpoint(path)
            result = checkpoint.get("val_result")  # None in checkpoints of the last epoch
            shown = "None" if result is None else f"{result:.1f}"
            print(f"Load {path} to {name} (epoch={checkpoint['epoch']}, val_result={shown})")
            self._models[name].load_state_dict(checkpoint["state_dict"])
