"""Checkpoints: whose they are, which of a folder is meant, strict loading and exact resuming.

They are Dassl's files with two entries more, `identity` and `training_state`, which Dassl itself
does not write: so they are written and read here, in the same way whichever toolkit is installed.
"""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from dassl.engine import TrainerX
from dassl.utils import save_checkpoint
from torch import Tensor, nn

from causalclip.engine import stopping
from causalclip.engine.checkpoint_file import last_written, read_checkpoint
from causalclip.engine.distributed import in_order, is_writer, wait
from causalclip.engine.random_state import random_state, set_random_state
from causalclip.engine.resumed_parts import load_part, state_of
from causalclip.report.results import TrainedOn, training_cost, training_facts


class ExactResume(TrainerX):
    """A killed run ends in the same bits as an uninterrupted one, and in nobody else's.

    Any Dassl trainer gets it by derivation: `class ExactCoOp(ExactResume, CoOp)`.
    """

    digest: str | None = None  # of the frozen weights, where the trainer knows it
    scaler: torch.amp.GradScaler | None = None  # of mixed precision
    trained_on: TrainedOn | None = None  # facts of the run whose model was loaded
    training_cost: dict[str, Any] | None = None  # what this run's training took
    saved_at: float | None = None  # when the last checkpoint was written, of a clock
    saved_in_time: int | None = None  # after how many epochs, where no setting asked for it

    @cached_property
    def classnames(self) -> list[str]:
        """The class names of this run, in the order of their labels."""
        return list(self.dm.dataset.classnames)

    def checkpoint_identity(self) -> dict[str, Any]:
        """Who a checkpoint belongs to; stored in it and compared when it is read."""
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "weights": self.digest,
            "classnames": self.classnames,
        }

    def training_state(self) -> dict[str, Any]:
        """What an exact resume needs besides model, optimizer and schedule.

        A trainer with more of it (a running average of weights) extends this and
        `load_training_state` by tensors, numbers, strings and containers of them.
        """
        return {
            "random": random_state(),
            "best_result": float(self.best_result),
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore what `training_state` returned."""
        set_random_state(state["random"])
        self.best_result = state["best_result"]
        if self.scaler is not None and state.get("scaler"):  # empty where it is not used
            self.scaler.load_state_dict(state["scaler"])

    def before_epoch(self) -> None:
        """Hook of Dassl's."""
        super().before_epoch()
        if self.saved_at is None:
            self.saved_at = time.monotonic()
        stopping.epoch_begins()

    def after_epoch(self) -> None:
        """As Dassl's, and a checkpoint every TRAIN.CHECKPOINT_MINUTES and before a stop.

        Raises:
            Stopped: the process was told to stop, and the epoch is saved.
        """
        super().after_epoch()
        if self._is_due_to_anybody():
            self.save_model(self.epoch, self.output_dir)
            self._drop_saved_in_time()
            self.saved_in_time, self.saved_at = self.epoch + 1, time.monotonic()
        elif self.epoch + 1 == self.max_epoch:
            self._drop_saved_in_time()
        stopping.epoch_ends()

    def _is_due_to_anybody(self) -> bool:
        """Whether to save, and whether to stop: one answer, as each process has its own clock."""
        told = in_order([(self._is_due(), stopping.asked())])
        stopping.ask(next((number for _, number in told if number is not None), None))
        return any(due for due, _ in told)

    def _is_due(self) -> bool:
        frequency, last = self.cfg.TRAIN.CHECKPOINT_FREQ, self.epoch + 1 == self.max_epoch
        if last or (frequency > 0 and (self.epoch + 1) % frequency == 0):  # Dassl has saved it
            return False
        minutes = self.cfg.TRAIN.get("CHECKPOINT_MINUTES", 0.0)
        waited = time.monotonic() - (self.saved_at or 0.0)
        return stopping.asked() is not None or (minutes > 0 and waited >= 60 * minutes)

    def _drop_saved_in_time(self) -> None:
        """Remove an earlier checkpoint that a later one has replaced."""
        if self.saved_in_time is not None and is_writer():
            for name in self.get_model_names():
                path = Path(self.output_dir) / name / f"model.pth.tar-{self.saved_in_time}"
                path.unlink(missing_ok=True)

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write `directory/<name>/model.pth.tar-<epoch + 1>` for every registered model.

        Raises:
            OSError: it cannot be written; earlier files stay whole.
        """
        for name in self.get_model_names() if is_writer() else ():
            checkpoint = {
                "state_dict": self._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": state_of(self._optims[name]),
                "scheduler": state_of(self._scheds[name]),
                "val_result": None if val_result is None else float(val_result),
                "identity": self.checkpoint_identity(),
                "training_state": self.training_state(),
            }
            folder = Path(directory) / name
            save_checkpoint(checkpoint, str(folder), is_best=is_best, model_name=model_name)
        wait()  # before any process reads it

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the checkpoint written last in `directory`; the number of epochs done.

        Where there is none that is 0.

        Raises:
            ValueError: it is of another method, backbone or class list, is damaged, or the models
                stand at different epochs.
        """
        folders = [Path(directory) / name for name in self.get_model_names()]
        if not folders or not all((folder / "checkpoint").exists() for folder in folders):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        # The last model is written last: what its pointer names exists for the others too.
        file = last_written(folders[-1])
        epochs = [self._resume(folder.name, folder / file) for folder in folders]
        if len(set(epochs)) > 1:
            raise ValueError(f"the models in {directory} stand at different epochs: {epochs}")
        return epochs[0]

    def _resume(self, name: str, path: Path) -> int:
        checkpoint = read_checkpoint(path)
        check_identity(checkpoint, self.checkpoint_identity(), path)
        self.check_classes(checkpoint, path, "choose another --output-dir, or delete the old run")
        load_state(self._models[name], checkpoint["state_dict"], path)
        for key, part in (("optimizer", self._optims[name]), ("scheduler", self._scheds[name])):
            if part is not None and checkpoint.get(key) is not None:
                load_part(part, checkpoint[key], f"{path}: {key}")
        if "training_state" in checkpoint:
            self._load_training_state(checkpoint["training_state"], path)
        else:
            print("Note: the checkpoint has no random state; the run continues with other draws")
        print(f"Resume {name} from {path} (epoch={checkpoint['epoch']})")
        return checkpoint["epoch"]

    def _load_training_state(self, state: dict[str, Any], path: Path) -> None:
        try:
            self.load_training_state(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path}: training_state is damaged: {said}") from error

    def check_classes(self, checkpoint: dict[str, Any], path: Path, why: str) -> None:
        """Compare the classes of a checkpoint with this run's.

        Raises:
            ValueError: they are others, even if as many; ends with `why` that matters.
        """
        # A checkpoint of another code base does not say; its run's results.json may.
        theirs = (checkpoint.get("identity") or self.trained_on or {}).get("classnames")
        if theirs is not None and list(theirs) != self.classnames:
            raise ValueError(
                f"{path}: learned for the classes {', '.join(theirs[:5])}, ..., this run has "
                f"{', '.join(self.classnames[:5])}, ...: {why}"
            )


class CheckpointTrainer(ExactResume):
    """Also loads for evaluation what was learned on other classes, of the same method and CLIP."""

    class_bound = False  # whether what is learned serves the classes of its training alone

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load what `directory` holds of this method.

        That is the given epoch, or model-best, or the last one written. Other class names are
        fine, unless the method is bound to its own.

        Raises:
            ValueError: no directory for a method that learns, or a file that is damaged or of
                another method, backbone or shape.
            FileNotFoundError: there is no such file; lists what is there.
        """
        if directory:
            self.trained_on = training_facts(directory)
            if Path(directory).resolve() == Path(self.output_dir).resolve():
                self.training_cost = training_cost(directory)  # else the evaluation drops it
        if not self.get_model_names():
            return
        if not directory:
            raise ValueError(
                f"{self.cfg.TRAINER.NAME} has learned numbers to load: give --model-dir "
                "(the training run's --output-dir)"
            )
        for name in self.get_model_names():
            path = checkpoint_path(Path(directory) / name, epoch)
            checkpoint = read_checkpoint(path)
            check_identity(checkpoint, self.checkpoint_identity(), path)
            if self.class_bound:
                why = "class-specific numbers cannot move to other classes"
                self.check_classes(checkpoint, path, why)
            print(f"Load {path} to {name} (epoch={checkpoint['epoch']})")
            load_state(self._models[name], checkpoint["state_dict"], path)


def checkpoint_path(directory: Path, epoch: int | None) -> Path:
    """The file to load from a model's folder: the given epoch's, or model-best, or the last one.

    Raises:
        FileNotFoundError: it is not there; lists what is.
    """
    if epoch is not None:
        path = directory / f"model.pth.tar-{epoch}"
    else:
        path = directory / "model-best.pth.tar"
        if not path.exists() and (directory / "checkpoint").exists():
            path = directory / last_written(directory)
    if not path.exists():
        there = sorted(p.name for p in directory.glob("model*")) if directory.exists() else []
        raise FileNotFoundError(f"no checkpoint {path}; {directory} holds: {there or 'nothing'}")
    return path


def check_identity(checkpoint: dict[str, Any], identity: dict[str, Any], path: Path) -> None:
    """Compare the method and the backbone of a checkpoint with this run's.

    Raises:
        ValueError: one of them is another; names both.
    """
    theirs = checkpoint.get("identity")
    if not theirs:  # written by another code base; strict loading finds what does not fit
        return
    if theirs["trainer"] != identity["trainer"]:
        raise ValueError(
            f"{path}: a checkpoint of {theirs['trainer']}, this run is {identity['trainer']}"
        )
    # One file may go by two names, and one name be loaded in two precisions: either will do.
    # Not every trainer knows the digest of its weights.
    known = [key for key in ("backbone", "weights") if theirs.get(key) is not None]
    if known and all(theirs[key] != identity[key] for key in known):
        raise ValueError(
            f"{path}: learned on the backbone {theirs['backbone']}, "
            f"this run has {identity['backbone']}"
        )


def load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load every tensor of `state`, whatever its shape (...), by name and shape.

    Raises:
        ValueError: some do not fit; names the file and says which.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this configuration: {error}") from error
