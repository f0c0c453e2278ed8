"""Run a training's steps with a clock, a log, regular checkpoints and signal handling."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from dassl.metrics import compute_accuracy
from torch import Tensor

from causalclip.engine import stopping
from causalclip.engine.data import views_kept
from causalclip.engine.distributed import average, from_all, is_main, world_size
from causalclip.engine.loading import Epochs, end_workers
from causalclip.records.results import peak_memory_mb, result_in

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

    from causalclip.engine.prompt_trainer import PromptTrainer


class TrainingSession:
    """One training of one trainer, from `start` to `end`."""

    def __init__(self, trainer: PromptTrainer) -> None:
        """Use the loader, checkpoints and counters of `trainer`."""
        self.trainer = trainer
        self.log = TrainingLog(every_step=trainer.device.type == "cpu")
        self._start, self._steps = 0.0, 0
        self._counter: FlopCounterMode | None = None

    def start(self) -> None:
        """Start the clock; encode the training images if DATALOADER.VIEWS_KEPT is set."""
        self._start = time.perf_counter()
        trainer, loader = self.trainer, self.trainer.train_loader_x
        views = views_kept(trainer.cfg)
        if views and isinstance(loader, Epochs) and trainer.start_epoch < trainer.max_epoch:
            loader.encode(trainer.backbone.encode, views)

    def begin_epoch(self) -> None:
        """Set the loader to this epoch and, in a resumed run, to the batch where it stopped."""
        trainer, loader = self.trainer, self.trainer.train_loader_x
        if isinstance(loader, Epochs):
            loader.epoch = trainer.epoch
            first = trainer.epoch == trainer.start_epoch
            loader.done = trainer.checkpointer.step if first else 0
        stopping.training_begins()

    def counting(self) -> AbstractContextManager[Any]:
        """Return a context that counts the FLOPs of the second step; the first computes more."""
        self._steps += 1
        if self._steps != 2:
            return nullcontext()
        from torch.utils.flop_counter import FlopCounterMode  # imported late, as it is slow

        self._counter = FlopCounterMode(display=False)
        return self._counter

    def step(self, batch: dict[str, Any]) -> dict[str, float] | None:
        """Take one step on a batch; return and raise as `end_step`."""
        trainer = self.trainer
        images, labels = trainer.parse_batch_train(batch)
        with trainer.backbone.autocast():
            loss, scores = trainer.loss(images, labels)
        if self.log.every_step:
            trainer.detect_anomaly(loss)
        trainer.model_zero_grad()
        trainer.scaler.scale(loss).backward()
        correct = compute_accuracy(scores, labels)[0]
        loss, accuracy = average(trainer.model, len(labels), loss, correct)
        trainer.scaler.step(trainer.optim)
        trainer.scaler.update()
        if trainer.batch_idx + 1 == trainer.num_batches:
            trainer.update_lr()
        return self.end_step(loss, accuracy)

    def end_step(self, loss: Tensor, accuracy: Tensor) -> dict[str, float] | None:
        """Log a step's loss and accuracy, tensors of one element; return the printed means.

        Raises:
            Stopped: the process was told to stop, and its state is saved.
            FloatingPointError: a loss that is NaN or infinite.
        """
        trainer, every = self.trainer, self.trainer.cfg.TRAIN.PRINT_FREQ
        done, batches = trainer.batch_idx + 1, trainer.num_batches
        # Several processes must agree on a checkpoint, so they check less often.
        looks = world_size() == 1 or done % every == 0
        if done < batches and isinstance(trainer.train_loader_x, Epochs) and looks:
            self._save_if_due(trainer.epoch, step=done)
        self.log.add(loss, accuracy)
        return self.log.due(epoch=trainer.epoch + 1, batch=done, batches=batches, every=every)

    def end_epoch(self) -> None:
        """Call `on_epoch`, write a checkpoint that is due, and stop if a signal asks for it.

        Raises:
            Stopped: the process was told to stop, and its state is saved.
        """
        if self.trainer.on_epoch is not None:
            self.trainer.on_epoch(self.trainer)
        self._save_if_due(self.trainer.epoch + 1, step=0)
        stopping.training_ends()

    def _save_if_due(self, epochs: int, *, step: int) -> None:
        checkpointer = self.trainer.checkpointer
        # One decision for all processes: each has its own clock and gets its own signals.
        due, signals = zip(*from_all((checkpointer.is_due(), stopping.asked())), strict=True)
        # The last epoch has a checkpoint anyway.
        if any(due) and is_main() and epochs < self.trainer.max_epoch:
            checkpointer.save_step(epochs, step)
        if any(signals):
            stopping.stop(next(filter(None, signals)))

    def end(self) -> None:
        """End the loading processes and record the cost of the training."""
        end_workers(self.trainer.train_loader_x)
        trainer = self.trainer
        epochs = trainer.max_epoch - trainer.start_epoch
        if epochs == 0:  # a finished run is evaluated again
            result = result_in(trainer.output_dir)
            trainer.checkpointer.training_cost = result and result.training
            return
        trainer.checkpointer.training_cost = {
            "seconds": time.perf_counter() - self._start,
            "epochs": epochs,
            "resumed_from_epoch": trainer.start_epoch,
            "steps": epochs * len(trainer.train_loader_x),
            "images": len(trainer.dm.dataset.train_x),
            "learnable_parameters": trainer.learned,
            "peak_memory_mb": peak_memory_mb(trainer.device),
            "step_flops": self._counter and self._counter.get_total_flops(),
            "curve": self.log.curve(),
        }


# Loss and accuracy


class TrainingLog:
    """Sums of loss and accuracy on the device; only reading them waits for a GPU."""

    def __init__(self, *, every_step: bool = True) -> None:
        """Start empty; `every_step`: return each step's numbers, without cost on a CPU."""
        self.every_step = every_step
        self._sum: Tensor | None = None
        self._steps = 0
        self._epochs: dict[int, tuple[int, float, float]] = {}

    def add(self, loss: Tensor, accuracy: Tensor) -> None:
        """Add one step's loss and accuracy, tensors (...) of one element each."""
        step = torch.stack([loss.detach().float().squeeze(), accuracy.float().squeeze()])
        self._sum = step if self._sum is None else self._sum + step
        self._steps += 1

    def due(self, *, epoch: int, batch: int, batches: int, every: int) -> dict[str, float] | None:
        """Return the means for Dassl's log line, or None if no line is printed now.

        Epoch and batch are of the last step, from 1; a line is printed after `every` batches.

        Raises:
            FloatingPointError: a loss since the last reading is NaN or infinite.
        """
        is_printed = self.every_step or batches < every or batch % every == 0
        if not is_printed and batch < batches:
            return None
        means = self.read(epoch=epoch, batch=batch)  # finds a NaN at the end, too
        return means if is_printed else None

    def read(self, *, epoch: int, batch: int) -> dict[str, float]:
        """Return the means since the last reading, as Dassl's meters expect them.

        Raises:
            FloatingPointError: a loss among them is NaN or infinite; names the batches.
        """
        assert self._sum is not None, "read after a step at least"
        loss, accuracy = (self._sum / self._steps).tolist()
        first, steps = batch - self._steps + 1, self._steps
        self._sum, self._steps = None, 0
        if not math.isfinite(loss):
            where = f"batch {batch}" if first == batch else f"batches {first} to {batch}"
            raise FloatingPointError(f"Loss is infinite or NaN! (epoch {epoch}, {where})")
        n, losses, accuracies = self._epochs.get(epoch, (0, 0.0, 0.0))
        self._epochs[epoch] = (n + steps, losses + steps * loss, accuracies + steps * accuracy)
        return {"loss": loss, "acc": accuracy}

    def curve(self) -> dict[str, list[float]]:
        """Return the means of each epoch: lists `epoch`, `loss` and `accuracy` of one length."""
        sums = self._epochs.values()
        return {
            "epoch": list(self._epochs),
            "loss": [loss / n for n, loss, _ in sums],
            "accuracy": [accuracy / n for n, _, accuracy in sums],
        }
