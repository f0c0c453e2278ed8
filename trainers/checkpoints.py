"""Checkpoints: whose they are, which of a folder is meant, and strict loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dassl.engine import TrainerX
from dassl.utils import load_checkpoint
from torch import Tensor, nn

from causalclip.trainers.results import training_facts


class CheckpointTrainer(TrainerX):
    """A trainer whose checkpoints say whose they are, and are compared with it when read.

    A subclass sets ``classnames``, and ``digest`` to that of its CLIP's weights.
    """

    class_bound = False  # whether what is learned serves the classes of its training alone

    def checkpoint_identity(self) -> dict[str, Any]:
        """Who a checkpoint belongs to; stored in it and compared when it is read."""
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "weights": self.digest,
            "classnames": self.classnames,
        }

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load what ``directory`` holds of this method: the given epoch, or model-best, or the last
        one written. Other class names are fine; another method or backbone is an error."""
        if directory:
            self.trained_on = training_facts(directory)
        if not self.get_model_names():
            return
        if not directory:
            raise ValueError(
                f"{self.cfg.TRAINER.NAME} has learned numbers to load: give --model-dir "
                "(the training run's --output-dir)"
            )
        for name in self.get_model_names():
            path = checkpoint_path(Path(directory) / name, epoch)
            checkpoint = load_checkpoint(str(path))
            check_identity(checkpoint, self.checkpoint_identity(), path)
            if self.class_bound:
                self.check_classes(checkpoint, path)
            print(f"Load {path} to {name} (epoch={checkpoint['epoch']})")
            load_state(self._models[name], checkpoint["state_dict"], path)

    def check_classes(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Raise where what was learned for each class is to serve other classes, even as many."""
        # Dassl's own checkpoints do not say; the training run's results.json does.
        theirs = (checkpoint.get("identity") or self.trained_on or {}).get("classnames")
        if theirs is not None and list(theirs) != self.classnames:
            raise ValueError(
                f"{path}: learned for the classes {', '.join(theirs[:5])}, ..., this run has "
                f"{', '.join(self.classnames[:5])}, ...: class-specific numbers cannot move to "
                "other classes"
            )


def checkpoint_path(directory: Path, epoch: int | None) -> Path:
    """The file to load from a model's folder; FileNotFoundError lists what is there."""
    if epoch is not None:
        path = directory / f"model.pth.tar-{epoch}"
    else:
        path = directory / "model-best.pth.tar"
        last = directory / "checkpoint"  # names the file written last
        if not path.exists() and last.exists():
            path = directory / last.read_text().strip()
    if not path.exists():
        there = sorted(p.name for p in directory.glob("model*")) if directory.exists() else []
        raise FileNotFoundError(f"no checkpoint {path}; {directory} holds: {there or 'nothing'}")
    return path


def check_identity(checkpoint: dict[str, Any], identity: dict[str, Any], path: Path) -> None:
    """Raise where a checkpoint was written by another method or for another backbone."""
    theirs = checkpoint.get("identity")
    if not theirs:  # written by a toolkit that does not record it
        return
    if theirs["trainer"] != identity["trainer"]:
        raise ValueError(
            f"{path}: a checkpoint of {theirs['trainer']}, this run is {identity['trainer']}"
        )
    # One file may go by two names, and one name be loaded in two precisions: either will do.
    if all(theirs[key] != identity[key] for key in ("backbone", "weights")):
        raise ValueError(
            f"{path}: learned on the backbone {theirs['backbone']}, "
            f"this run has {identity['backbone']}"
        )


def load_state(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Strict load; a ValueError names the file and says what does not fit."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this configuration: {error}") from error
