"""The training loop: TrainerBase (hooks), SimpleTrainer (data, test), TrainerX (batches).

Hooks and their order are Dassl's: before_train, then per epoch before_epoch, run_epoch,
after_epoch, then after_train; a trainer fills in build_model and forward_backward.
"""

from __future__ import annotations

import datetime
import math
import os.path as osp
import time
from typing import Any

import numpy as np
import torch
from dassl.data import DataManager
from dassl.engine.models import NamedModels
from dassl.evaluation import build_evaluator
from dassl.utils import AverageMeter, MetricMeter, load_checkpoint
from torch import Tensor
from tqdm import tqdm


class TrainerBase(NamedModels):
    """The bare loop over epochs, and TensorBoard."""

    def __init__(self) -> None:
        super().__init__()
        self._writer: Any = None

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
        """One pass over the training data.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError

    def test(self) -> float:
        """Evaluate.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError

    def parse_batch_train(self, batch: dict) -> Any:
        """Take what training needs from a batch, onto the device.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError

    def parse_batch_test(self, batch: dict) -> Any:
        """Take what evaluation needs from a batch, onto the device.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError

    def forward_backward(self, batch: dict) -> dict | None:
        """One training step; returns the numbers to report.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError

    def model_inference(self, input: Any) -> Tensor:
        """Return the class scores (B, K) of a test batch.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError


class SimpleTrainer(TrainerBase):
    """A trainer with data, an evaluator, checkpoints per schedule, and a test at the end."""

    model: torch.nn.Module  # set, with optim and sched, by build_model

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
        """Build self.model, self.optim, self.sched and register them.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build_model()")

    def train(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as in Dassl
        """Train from the configuration's first to its last epoch, then test."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume from RESUME or OUTPUT_DIR if there is a checkpoint; open TensorBoard.

        Raises:
            FileNotFoundError: RESUME names a folder without a checkpoint.
        """
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        if self.start_epoch == 0 and self.cfg.RESUME:
            raise FileNotFoundError(f'no checkpoint to resume from in RESUME "{self.cfg.RESUME}"')
        if self.start_epoch > 0:
            self.epoch = self.start_epoch - 1
            self._announce_resume()
        self.init_writer(osp.join(self.output_dir, "tensorboard"))
        self.time_start = time.time()

    def resume_model_if_exist(self, directory: str) -> int:
        """As in TrainerBase; the best validation result so far comes from model-best.pth.tar."""
        epochs_done = super().resume_model_if_exist(directory)
        if epochs_done > 0:
            best = osp.join(directory, self.get_model_names()[0], "model-best.pth.tar")
            result = load_checkpoint(best)["val_result"] if osp.exists(best) else None
            self.best_result = -np.inf if result is None else result
        return epochs_done

    def _announce_resume(self) -> None:
        names = [self.lab2cname[label] for label in sorted(self.lab2cname)]
        what = (
            f"trainer {self.cfg.TRAINER.NAME}, backbone {self.cfg.MODEL.BACKBONE.NAME or 'none'}, "
            f"{len(names)} classes ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"
        )
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
        """Return the class scores (B, K) of a test batch.

        Raises:
            NotImplementedError: unless a subclass says it.
        """
        return self.model(input)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) and labels (B,) on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)


class TrainerX(SimpleTrainer):
    """The loop over labelled images."""

    def run_epoch(self) -> None:
        """One pass over train_loader_x: forward_backward per batch, progress every PRINT_FREQ.

        Raises:
            FloatingPointError: a loss is infinite or NaN; names epoch and batch.
        """
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
        """Return images (B, 3, H, W), labels (B,) and domains (B,) on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))
