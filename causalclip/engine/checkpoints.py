"""Write, load and resume checkpoints: Dassl's files with `identity` and `training_state` added.

The trainers of both toolkits use this module: a run that was killed and resumed ends with the same
bits as an uninterrupted run, and no run continues from the checkpoint of another run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from dassl.utils import save_checkpoint

from causalclip.engine import stopping
from causalclip.engine.checkpoint_file import (
    POINTER,
    PRETRAINED_FILE,
    check_identity,
    checkpoint_path,
    last_written,
    load_part,
    load_state,
    read_checkpoint,
    read_pretrained,
)
from causalclip.engine.draws import random_state, set_random_state
from causalclip.records.identity import (
    describe,
    recorded_fingerprint,
    run_settings,
    setting_differences,
)
from causalclip.records.results import TrainedOn, result_in

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer


STEP_FILE = "model-step.pth.tar"
"""Checkpoint within an epoch, or after an epoch whose checkpoint is not kept."""


class Checkpointer:
    """The checkpoints of one trainer."""

    def __init__(self, trainer: CLIPTrainer) -> None:
        """Write and read the models that `trainer` has registered."""
        self.trainer = trainer
        self.scaler: torch.amp.GradScaler | None = None  # for mixed precision
        self.trained_on: TrainedOn | None = None
        """Facts of the run whose model was loaded."""
        self.trained_identity: str | None = None
        """Fingerprint of the run whose model was loaded."""
        self.training_cost: dict[str, Any] | None = None
        """Cost of this run's training."""
        self.loaded = False
        """Whether the model comes from another run."""
        self.step = 0
        """Number of batches of the current epoch that are done; 0 between epochs."""
        self._saved_at = time.monotonic()

    def identity(self) -> dict[str, Any]:
        """Return the facts of this run that a checkpoint is compared with."""
        trainer = self.trainer
        return {
            "trainer": trainer.cfg.TRAINER.NAME,
            "backbone": trainer.cfg.MODEL.BACKBONE.NAME,
            "weights": trainer.backbone.digest,
            "classnames": trainer.classnames,
            "settings": run_settings(trainer.cfg, trainer.config_node),
        }

    def trained_names(self) -> list[str] | None:
        """Return the trained classes; None for a loaded model whose run does not record them."""
        if self.trained_on is not None:
            return self.trained_on["classnames"]
        return None if self.loaded else self.trainer.classnames

    # Writing

    def save(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write `directory/<name>/model.pth.tar-<epoch + 1>` of every model; arguments as in Dassl.

        Raises:
            OSError: it cannot be written; earlier files stay whole.
        """
        trainer = self.trainer
        for name in trainer.get_model_names():
            optimizer, schedule = trainer._optims[name], trainer._scheds[name]
            checkpoint = {
                "state_dict": trainer._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": None if optimizer is None else optimizer.state_dict(),
                "scheduler": None if schedule is None else schedule.state_dict(),
                "val_result": None if val_result is None else float(val_result),
                "identity": self.identity(),
                "training_state": {
                    "random": random_state(),
                    "best_result": float(trainer.best_result),
                    "scaler": {} if self.scaler is None else self.scaler.state_dict(),
                    "step": self.step if model_name == STEP_FILE else 0,
                },
            }
            folder = Path(directory) / name
            save_checkpoint(checkpoint, str(folder), is_best=is_best, model_name=model_name)
            if not model_name:  # after an epoch: Dassl's pointer names the new file
                (folder / STEP_FILE).unlink(missing_ok=True)

    def save_step(self, epochs: int, step: int) -> None:
        """Write the state after `epochs` epochs and `step` batches; the next call replaces it."""
        self.step = step
        self.save(epochs - 1, self.trainer.output_dir, model_name=STEP_FILE)
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Return whether TRAIN.CHECKPOINT_MINUTES have passed, or the process was told to stop."""
        minutes = self.trainer.cfg.TRAIN.get("CHECKPOINT_MINUTES", 0.0)
        waited = time.monotonic() - self._saved_at
        return stopping.asked() is not None or (minutes > 0 and waited >= 60 * minutes)

    # Resuming

    def resume(self, directory: str) -> int:
        """Load the newest checkpoint in `directory`, if any; return the number of epochs done.

        Raises:
            ValueError: it is of another method, backbone or class list, is damaged, or the models
                have trained for different numbers of epochs.
        """
        folders = [Path(directory) / name for name in self.trainer.get_model_names()]
        if not folders or not all((folder / POINTER).exists() for folder in folders):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        # The last model is written last, so the file that its pointer names exists for all models.
        file = last_written(folders[-1])
        epochs = [self._resume(folder.name, folder / file) for folder in folders]
        if len(set(epochs)) > 1:
            raise ValueError(f"the models in {directory} stand at different epochs: {epochs}")
        return epochs[0]

    def _resume(self, name: str, path: Path) -> int:
        trainer = self.trainer
        checkpoint = read_checkpoint(path)
        check_identity(checkpoint, self.identity(), path)
        self.check_classes(checkpoint, path, "choose another --output-dir, or delete the old run")
        if not trainer.cfg.RESUME:  # a checkpoint that you name may have other settings
            self._check_settings(checkpoint, path)
        load_state(trainer._models[name], checkpoint["state_dict"], path)
        parts = {"optimizer": trainer._optims[name], "scheduler": trainer._scheds[name]}
        for key, part in parts.items():
            if part is not None and checkpoint.get(key) is not None:
                load_part(part, checkpoint[key], f"{path}: {key}")
        if "training_state" in checkpoint:
            self._load_training_state(checkpoint["training_state"], path)
        else:
            print("Note: the checkpoint has no random state; the run continues with other draws")
        print(f"Resume {name} from {path} (epoch={checkpoint['epoch']})")
        return checkpoint["epoch"]

    def _check_settings(self, checkpoint: dict[str, Any], path: Path) -> None:
        recorded = (checkpoint.get("identity") or {}).get("settings")
        if recorded is None:  # from another code base
            return
        current = self.identity()["settings"]
        shared = recorded.keys() & current.keys()
        differences = setting_differences(
            {key: recorded[key] for key in shared}, {key: current[key] for key in shared}, {}
        )
        if differences:
            raise ValueError(
                f"{path} is of a run of other settings: {describe(differences)}. Choose another "
                "--output-dir, or delete the old run"
            )

    def _load_training_state(self, state: dict[str, Any], path: Path) -> None:
        try:
            set_random_state(state["random"])
            self.trainer.best_result, self.step = state["best_result"], state.get("step", 0)
            if self.scaler is not None and state.get("scaler"):  # empty if it was not used
                self.scaler.load_state_dict(state["scaler"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path}: training_state is damaged: {message}") from error

    def check_classes(self, checkpoint: dict[str, Any], path: Path, reason: str) -> None:
        """Raise if a checkpoint was trained on other classes, even on the same number of classes.

        Raises:
            ValueError: names both lists; ends with `reason`.
        """
        # Checkpoints of other code bases do not name their classes, but results.json may.
        learned = (checkpoint.get("identity") or self.trained_on or {}).get("classnames")
        classnames = self.trainer.classnames
        if learned is not None and list(learned) != classnames:
            raise ValueError(
                f"{path}: learned for the classes {', '.join(learned[:5])}, ..., this run has "
                f"{', '.join(classnames[:5])}, ...: {reason}"
            )

    # Loading for an evaluation

    def load(self, directory: str, epoch: int | None = None, *, class_bound: bool = False) -> None:
        """Load the models of `directory`; `epoch` as in `checkpoint_path`.

        With `class_bound` a model is only valid for the classes that it was trained on.

        Raises:
            ValueError: no directory for a method that learns, or a file that is damaged or of
                another method, backbone or shape.
            FileNotFoundError: there is no such file; lists those that exist.
        """
        trainer = self.trainer
        self.loaded = True
        if directory:
            result = result_in(directory)
            self.trained_on = result and result.trained()
            self.trained_identity = recorded_fingerprint(directory)
            if Path(directory).resolve() == Path(trainer.output_dir).resolve():
                self.training_cost = result and result.training  # results.json will be overwritten
        for name, checkpoint, path in self.checkpoints(directory, epoch):
            if class_bound:
                reason = "class-specific numbers cannot move to other classes"
                self.check_classes(checkpoint, path, reason)
            print(f"Load {path} to {name} (epoch={checkpoint['epoch']})")
            load_state(trainer._models[name], checkpoint["state_dict"], path)

    def checkpoints(
        self, directory: str, epoch: int | None
    ) -> Iterator[tuple[str, dict[str, Any], Path]]:
        """Yield the name, content and file of each model's checkpoint; raise as `load`."""
        pretrained = Path(directory, PRETRAINED_FILE)
        passed_on = read_pretrained(pretrained) if directory and pretrained.is_file() else None
        for name in self.trainer.get_model_names():
            if not directory:
                raise ValueError(
                    f"{self.trainer.cfg.TRAINER.NAME} has learned numbers to load: give "
                    "--model-dir (the training run's --output-dir)"
                )
            if passed_on is None:
                path = checkpoint_path(Path(directory) / name, epoch)
                checkpoint = read_checkpoint(path)
            elif name in passed_on and epoch is None:
                path, checkpoint = pretrained, passed_on[name]
            else:
                raise ValueError(f"{pretrained} has no {name} of epoch {epoch or 'any'}")
            check_identity(checkpoint, self.identity(), path)
            yield name, checkpoint, path
