"""Checkpoints: whose they are, which of a folder is meant, strict loading and exact resuming.

They are Dassl's files with two entries more, `identity` and `training_state`, which Dassl itself
does not write: so they are written and read here, in the same way whichever toolkit is installed.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dassl.engine import TrainerX
from dassl.utils import load_checkpoint, save_checkpoint
from torch import Tensor, nn

from causalclip.report.results import training_facts


class CheckpointTrainer(TrainerX):
    """A trainer whose checkpoints say whose they are, and are compared with it when read.

    A subclass sets ``classnames``, and ``digest`` to that of its CLIP's weights.
    """

    class_bound = False  # whether what is learned serves the classes of its training alone
    trained_on: dict[str, Any] | None = None  # facts of the run whose model was loaded

    def checkpoint_identity(self) -> dict[str, Any]:
        """Who a checkpoint belongs to; stored in it and compared when it is read."""
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "weights": self.digest,
            "classnames": self.classnames,
        }

    def training_state(self) -> dict[str, Any]:
        """What an exact resume needs besides model, optimizer and schedule: tensors, numbers,
        strings and containers of them."""
        return {"random": random_state(), "best_result": float(self.best_result)}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore what ``training_state`` returned."""
        set_random_state(state["random"])
        self.best_result = state["best_result"]

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write ``directory/<name>/model.pth.tar-<epoch + 1>`` for every registered model."""
        for name in self.get_model_names():
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

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the checkpoint written last in ``directory``; the number of epochs it has, 0
        where there is none. One of another method, backbone or class list is an error."""
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
        checkpoint = load_checkpoint(str(path))
        check_identity(checkpoint, self.checkpoint_identity(), path)
        self.check_classes(checkpoint, path, "choose another --output-dir, or delete the old run")
        load_state(self._models[name], checkpoint["state_dict"], path)
        for key, part in (("optimizer", self._optims[name]), ("scheduler", self._scheds[name])):
            if part is not None and checkpoint.get(key) is not None:
                part.load_state_dict(checkpoint[key])
        if "training_state" in checkpoint:
            self.load_training_state(checkpoint["training_state"])
        else:
            print("Note: the checkpoint has no random state; the run continues with other draws")
        print(f"Resume {name} from {path} (epoch={checkpoint['epoch']})")
        return checkpoint["epoch"]

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
                why = "class-specific numbers cannot move to other classes"
                self.check_classes(checkpoint, path, why)
            print(f"Load {path} to {name} (epoch={checkpoint['epoch']})")
            load_state(self._models[name], checkpoint["state_dict"], path)

    def check_classes(self, checkpoint: dict[str, Any], path: Path, why: str) -> None:
        """Raise where a checkpoint was learned for other classes than this run's, even as many."""
        # A checkpoint of another code base does not say; its run's results.json may.
        theirs = (checkpoint.get("identity") or self.trained_on or {}).get("classnames")
        if theirs is not None and list(theirs) != self.classnames:
            raise ValueError(
                f"{path}: learned for the classes {', '.join(theirs[:5])}, ..., this run has "
                f"{', '.join(self.classnames[:5])}, ...: {why}"
            )


def checkpoint_path(directory: Path, epoch: int | None) -> Path:
    """The file to load from a model's folder: the given epoch's, or model-best, or the one written
    last; FileNotFoundError lists what is there."""
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


def last_written(directory: Path) -> str:
    """The name of the file written last, which Dassl keeps in the file `checkpoint`."""
    return (directory / "checkpoint").read_text().strip()


def check_identity(checkpoint: dict[str, Any], identity: dict[str, Any], path: Path) -> None:
    """Raise where a checkpoint was written by another method or for another backbone."""
    theirs = checkpoint.get("identity")
    if not theirs:  # written by another code base; strict loading finds what does not fit
        return
    if theirs["trainer"] != identity["trainer"]:
        raise ValueError(
            f"{path}: a checkpoint of {theirs['trainer']}, this run is {identity['trainer']}"
        )
    # One file may go by two names, and one name be loaded in two precisions: either will do.
    # A trainer of another code base on minidassl names the backbone alone.
    if all(theirs.get(key) != identity[key] for key in ("backbone", "weights")):
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


def state_of(part: Any) -> dict[str, Any] | None:
    """The state dict of an optimizer or schedule; None for a model without one."""
    return None if part is None else part.state_dict()


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as tensors, numbers and strings."""
    name, keys, *position = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *position),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators back; CUDA's only where there are as many devices as there were."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *position = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *position))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])
