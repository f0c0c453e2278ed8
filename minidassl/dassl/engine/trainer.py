"""The training loop: SimpleTrainer (data, test) and TrainerX (batches) on TrainerBase (hooks).

Hooks and their order are Dassl's: before_train, then per epoch before_epoch, run_epoch,
after_epoch, then after_train. A trainer defines build_model and forward_backward.
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
from dassl.engine.base import TrainerBase
from dassl.evaluation import build_evaluator
from dassl.utils import AverageMeter, MetricMeter, load_checkpoint
from torch import Tensor
from tqdm import tqdm


class SimpleTrainer(TrainerBase):
    """A trainer with data, an evaluator, periodic checkpoints, and a test at the end."""

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
        """Raise an error for a configuration that this trainer cannot run (hook)."""

    def build_data_loader(self) -> None:
        """Set the loaders, and the number and names of the classes."""
        self.dm = dm = DataManager(self.cfg)
        self.train_loader_x, self.train_loader_u = dm.train_loader_x, dm.train_loader_u
        self.val_loader, self.test_loader = dm.val_loader, dm.test_loader
        self.num_classes, self.lab2cname = dm.num_classes, dm.lab2cname
        self.num_source_domains = dm.num_source_domains

    def build_model(self) -> None:
        """Build self.model, self.optim, self.sched and register them."""
        raise NotImplementedError(f"{type(self).__name__} must define build_model()")

    def train(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as in Dassl
        """Train from the configuration's first to its last epoch, then test."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume from RESUME or OUTPUT_DIR if there is a checkpoint; open TensorBoard.

        Raises:
            FileNotFoundError: RESUME has no checkpoint.
        """
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        if self.start_epoch == 0 and self.cfg.RESUME:
            raise FileNotFoundError(f'no checkpoint to resume from in RESUME "{self.cfg.RESUME}"')
        if self.start_epoch > 0:
            self.epoch = self.start_epoch - 1
            self._print_resume()
        self.init_writer(osp.join(self.output_dir, "tensorboard"))
        self.time_start = time.time()

    def resume_model_if_exist(self, directory: str) -> int:
        """Resume, and read the best validation result so far from model-best.pth.tar."""
        epochs_done = super().resume_model_if_exist(directory)
        if epochs_done > 0:
            best = osp.join(directory, self.get_model_names()[0], "model-best.pth.tar")
            result = load_checkpoint(best)["val_result"] if osp.exists(best) else None
            self.best_result = -np.inf if result is None else result
        return epochs_done

    def _print_resume(self) -> None:
        names = [self.lab2cname[label] for label in sorted(self.lab2cname)]
        run = (
            f"trainer {self.cfg.TRAINER.NAME}, backbone {self.cfg.MODEL.BACKBONE.NAME or 'none'}, "
            f"{len(names)} classes ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"
        )
        if self.start_epoch < self.max_epoch:
            print(f"Resuming at epoch {self.start_epoch + 1} of {self.max_epoch}: {run}")
        else:
            print(
                f"All {self.max_epoch} epochs were trained before, nothing to train: {run}. "
                "To train again, choose another output folder or delete the checkpoints"
            )

    def after_train(self) -> None:
        """Test the last or the best model, and print the time taken."""
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
        """Save every CHECKPOINT_FREQ epochs; if TEST.FINAL_MODEL is best_val, also the best one."""
        if not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(
                    self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar"
                )
        done, frequency = self.epoch + 1, self.cfg.TRAIN.CHECKPOINT_FREQ
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)

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
            print("Note: the data set has no val split, the test split replaces it")
        return "test", self.test_loader

    def model_inference(self, input: Any) -> Tensor:
        """Return the class scores (B, K) of a test batch."""
        return self.model(input)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) and labels (B,) on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)


class TrainerX(SimpleTrainer):
    """The loop over labelled images."""

    def run_epoch(self) -> None:
        """Call forward_backward for each batch of train_loader_x; print every PRINT_FREQ batches.

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
            frequency = self.cfg.TRAIN.PRINT_FREQ
            if self.num_batches < frequency or (self.batch_idx + 1) % frequency == 0:
                print(self._progress(losses, batch_time, data_time))
            self._write_scalars(losses)
            end = time.time()

    def _check_summary(self, summary: dict | None) -> None:
        """Raise an error for a loss that is not finite, as a trainer may bypass model_backward."""
        for name, value in (summary or {}).items():
            if "loss" in name.lower() and not math.isfinite(value):
                raise FloatingPointError(
                    f"Loss is infinite or NaN!{self._position()}: {name} is {float(value)}"
                )

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
