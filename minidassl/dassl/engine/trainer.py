"""The training loop: TrainerBase (models, checkpoints), SimpleTrainer (data, test), TrainerX.

Hooks and their order are Dassl's: before_train, then per epoch before_epoch, run_epoch,
after_epoch, then after_train; a trainer fills in build_model and forward_backward.
"""

import datetime
import math
import os.path as osp
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from dassl.data import DataManager
from dassl.engine.random_state import random_state, set_random_state
from dassl.evaluation import build_evaluator
from dassl.utils import (
    AverageMeter,
    CheckpointError,
    MetricMeter,
    last_checkpoint_name,
    load_checkpoint,
    restore,
    save_checkpoint,
    tolist_if_not,
)
from torch import Tensor, nn
from tqdm import tqdm


class TrainerBase:
    """Named models with their optimizers and schedules, their checkpoints, and the bare loop."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()
        self._writer = None

    # Models

    def register_model(
        self, name: str = "model", model: Any = None, optim: Any = None, sched: Any = None
    ) -> None:
        """Register what is trained, saved and stepped under `name`."""
        if "_models" not in self.__dict__:
            raise AttributeError("Cannot assign model before super().__init__() call")
        if name in self._models:
            raise ValueError(f"Found duplicate model names: {name!r} is registered already")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """Return all registered names, or `names` as a list once they are checked."""
        known = list(self._models)
        if names is None:
            return known
        names = tolist_if_not(names)
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is not a registered model, got {', '.join(known)}")
        return names

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Put registered models into "train" or "eval" ("test") mode."""
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
        """Backpropagate a finite loss."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        """Step the optimizers."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: Tensor, names: str | list[str] | None = None) -> None:
        """Clear gradients, backpropagate, step."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raise FloatingPointError for a loss that is not finite."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError(f"Loss is infinite or NaN!{self._position()}")

    def _position(self) -> str:
        """Where in the training we are, for messages; nothing outside of it."""
        if not hasattr(self, "batch_idx"):
            return ""
        return f" (epoch {self.epoch + 1}, batch {self.batch_idx + 1})"

    # Checkpoints

    def checkpoint_identity(self) -> dict:
        """Return what a checkpoint belongs to; compared before a run resumes from it."""
        return {"trainer": type(self).__name__}

    def training_state(self) -> dict:
        """Return what an exact resume needs besides model, optimizer and schedule.

        A trainer with more state of its own (a running average of weights) extends this and
        load_training_state with tensors, numbers, strings and containers of them.
        """
        return {"random": random_state()}

    def load_training_state(self, state: dict) -> None:
        """Restore what training_state() returned."""
        set_random_state(state["random"])

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write one checkpoint per registered model to directory/<name>/."""
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            save_checkpoint(
                {
                    "state_dict": self._models[name].state_dict(),
                    "epoch": epoch + 1,
                    "optimizer": optim.state_dict() if optim is not None else None,
                    "scheduler": sched.state_dict() if sched is not None else None,
                    "val_result": float(val_result) if val_result is not None else None,
                    "identity": self.checkpoint_identity(),
                    "training_state": self.training_state(),
                },
                osp.join(directory, name),
                is_best=is_best,
                model_name=model_name,
            )

    def resume_model_if_exist(self, directory: str) -> int:
        """Restore all models from the last checkpoint in `directory`; return the epochs done.

        0 where there is none. CheckpointError, naming both sides, for a checkpoint of another
        trainer, backbone or class list.
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
        epochs = [self._resume_model(name, osp.join(directory, name, file_name)) for name in names]
        if len(set(epochs)) > 1:
            raise CheckpointError(f"the models in {directory} stand at different epochs: {epochs}")
        return epochs[0]

    def _resume_model(self, name: str, path: str) -> int:
        print(f'Loading checkpoint from "{path}"')
        checkpoint = load_checkpoint(path)
        self.check_identity(checkpoint, path)
        epoch = restore(checkpoint, self._models[name], self._optims[name], self._scheds[name])
        if "training_state" in checkpoint:
            self.load_training_state(checkpoint["training_state"])
        else:
            print("Note: the checkpoint has no random state; the run continues with other draws")
        return epoch

    def check_identity(
        self, checkpoint: dict, path: str, keys: tuple[str, ...] | None = None
    ) -> None:
        """Raise CheckpointError where a stored identity differs from ours (in one of `keys`).

        Checkpoints of Dassl store none and are not compared.
        """
        stored, ours = checkpoint.get("identity", {}), self.checkpoint_identity()
        for key in stored.keys() & ours.keys() if keys is None else keys:
            if key in stored and key in ours and stored[key] != ours[key]:
                raise CheckpointError(
                    f'"{path}" belongs to another run: its {key} is {_shown(stored[key])}, '
                    f"ours is {_shown(ours[key])}. Choose another output folder, or delete the "
                    "old checkpoints"
                )

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load all models for evaluation: model.pth.tar-<epoch>, or model-best.pth.tar."""
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
        self.check_identity(checkpoint, path, keys=("trainer", "backbone"))
        result = checkpoint.get("val_result")  # None in checkpoints of the last epoch
        shown = "None" if result is None else f"{result:.1f}"
        print(f"Load {path} to {name} (epoch={checkpoint['epoch']}, val_result={shown})")
        self._models[name].load_state_dict(checkpoint["state_dict"])

    # TensorBoard

    def init_writer(self, log_dir: str) -> None:
        """Open a TensorBoard writer, where TensorBoard is installed."""
        if self.__dict__.get("_writer") is not None:
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
        """Hook."""

    def after_train(self) -> None:
        """Hook."""

    def before_epoch(self) -> None:
        """Hook."""

    def after_epoch(self) -> None:
        """Hook."""

    def run_epoch(self) -> None:
        """One pass over the training data."""
        raise NotImplementedError

    def test(self) -> float:
        """Evaluate."""
        raise NotImplementedError

    def parse_batch_train(self, batch: dict) -> Any:
        """Take what training needs from a batch, onto the device."""
        raise NotImplementedError

    def parse_batch_test(self, batch: dict) -> Any:
        """Take what evaluation needs from a batch, onto the device."""
        raise NotImplementedError

    def forward_backward(self, batch: dict) -> dict | None:
        """One training step; returns the numbers to report."""
        raise NotImplementedError

    def model_inference(self, input: Any) -> Tensor:
        """Return the class scores of a test batch."""
        raise NotImplementedError


def _shown(value: Any, limit: int = 8) -> str:
    """Show a stored value; a long list by its length and first items."""
    if not isinstance(value, list):
        return repr(value)
    dots = ", ..." if len(value) > limit else ""
    return f"{len(value)} ({', '.join(map(str, value[:limit]))}{dots})"


class SimpleTrainer(TrainerBase):
    """A trainer with data, an evaluator, checkpoints per schedule, and a test at the end."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.check_cfg(cfg)
        cuda = torch.cuda.is_available() and cfg.USE_CUDA
        self.device = torch.device("cuda" if cuda else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = -np.inf

    def check_cfg(self, cfg: Any) -> None:
        """Refuse a configuration that this trainer cannot run (hook)."""

    def build_data_loader(self) -> None:
        """Set the loaders and what is known of the classes; a trainer may build its own."""
        self.dm = dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname

    def build_model(self) -> None:
        """Build self.model, self.optim, self.sched and register them."""
        raise NotImplementedError(f"{type(self).__name__} must define build_model()")

    def checkpoint_identity(self) -> dict:
        """Return trainer, backbone and class names."""
        return {
            "trainer": self.cfg.TRAINER.NAME or type(self).__name__,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "classnames": [self.lab2cname[label] for label in sorted(self.lab2cname)],
        }

    def training_state(self) -> dict:
        """Add the best validation result so far, and the loss scaler of mixed precision."""
        state = {**super().training_state(), "best_result": float(self.best_result)}
        if getattr(self, "scaler", None) is not None:
            state["scaler"] = self.scaler.state_dict()
        return state

    def load_training_state(self, state: dict) -> None:
        """Restore what training_state() returned."""
        super().load_training_state(state)
        self.best_result = state["best_result"]
        if state.get("scaler") and getattr(self, "scaler", None) is not None:
            self.scaler.load_state_dict(state["scaler"])

    def train(self) -> None:
        """Train from the configuration's first to its last epoch, then test."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume from RESUME or OUTPUT_DIR if there is a checkpoint; open TensorBoard."""
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        if self.start_epoch == 0 and self.cfg.RESUME:
            raise FileNotFoundError(f'no checkpoint to resume from in RESUME "{self.cfg.RESUME}"')
        if self.start_epoch > 0:
            self.epoch = self.start_epoch - 1
            self._announce_resume()
        self.init_writer(osp.join(self.output_dir, "tensorboard"))
        self.time_start = time.time()

    def _announce_resume(self) -> None:
        what = ", ".join(f"{key} {_shown(v)}" for key, v in self.checkpoint_identity().items())
        if self.start_epoch < self.max_epoch:
            print(f"Resuming at epoch {self.start_epoch + 1} of {self.max_epoch}: {what}")
        else:
            print(
                f"All {self.max_epoch} epochs were trained before, nothing to train: {what}. "
                "To train again, choose another output folder or delete the checkpoints"
            )

    def after_train(self) -> None:
        """Test the last or the best model, and report the time taken."""
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        elapsed = round(time.time() - self.time_start)
        print(f"Elapsed: {datetime.timedelta(seconds=elapsed)}")
        self.close_writer()

    def after_epoch(self) -> None:
        """Keep the best model by validation if asked to; save per CHECKPOINT_FREQ and at last."""
        if not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val":
            self._keep_best()
        done, frequency = self.epoch + 1, self.cfg.TRAIN.CHECKPOINT_FREQ
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)

    def _keep_best(self) -> None:
        result = self.test(split="val")
        if result > self.best_result:
            self.best_result = result
            self.save_model(
                self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar"
            )

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on `split` (default TEST.SPLIT) and return the evaluator's first result."""
        self.set_model_mode("eval")
        self.evaluator.reset()
        split, loader = self._test_split(split or self.cfg.TEST.SPLIT)
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(loader):
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return next(iter(results.values()))

    def _test_split(self, split: str) -> tuple[str, Any]:
        if split == "val" and self.val_loader is not None:
            return split, self.val_loader
        if split == "val":
            print("Note: the data set has no val split, the test split takes its place")
        return "test", self.test_loader

    def model_inference(self, input: Any) -> Tensor:
        """Return the class scores of a test batch."""
        return self.model(input)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Return images and labels on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)


class TrainerX(SimpleTrainer):
    """The loop over labelled images."""

    def run_epoch(self) -> None:
        """One pass over train_loader_x: forward_backward per batch, progress every PRINT_FREQ."""
        self.set_model_mode("train")
        losses = MetricMeter()
        batch_time, data_time = AverageMeter(), AverageMeter()
        end = time.time()
        for batch_idx, batch in enumerate(self.train_loader_x):
            self.batch_idx = batch_idx
            # Some samplers know their length only once the pass has begun.
            self.num_batches = len(self.train_loader_x)
            data_time.update(time.time() - end)
            summary = self.forward_backward(batch)
            batch_time.update(time.time() - end)
            self._check_summary(summary)
            losses.update(summary)
            if self._prints_this_batch():
                print(self._progress(losses, batch_time, data_time))
            self._write_scalars(losses)
            end = time.time()

    def _check_summary(self, summary: dict | None) -> None:
        """Catch a loss that is not finite where a trainer bypasses model_backward."""
        for name, value in (summary or {}).items():
            if "loss" in name.lower() and not math.isfinite(value):
                raise FloatingPointError(
                    f"Loss is infinite or NaN!{self._position()}: {name} is {float(value)}"
                )

    def _prints_this_batch(self) -> bool:
        frequency = self.cfg.TRAIN.PRINT_FREQ
        return self.num_batches < frequency or (self.batch_idx + 1) % frequency == 0

    def _progress(
        self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> str:
        epochs_left = self.max_epoch - self.epoch - 1
        batches_left = self.num_batches - self.batch_idx - 1 + epochs_left * self.num_batches
        eta = datetime.timedelta(seconds=int(batch_time.avg * batches_left))
        return (
            f"epoch [{self.epoch + 1}/{self.max_epoch}] "
            f"batch [{self.batch_idx + 1}/{self.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
            f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{losses} "
            f"lr {self.get_current_lr():.4e} "
            f"eta {eta}"
        )

    def _write_scalars(self, losses: MetricMeter) -> None:
        step = self.epoch * self.num_batches + self.batch_idx
        for name, meter in losses.meters.items():
            self.write_scalar(f"train/{name}", meter.avg, step)
        self.write_scalar("train/lr", self.get_current_lr(), step)

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and domains on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))
