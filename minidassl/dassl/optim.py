"""Optimizers, and learning rates per epoch: step, multi-step and cosine, each with a warm-up."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from dassl.utils.registry import check_availability
from torch import Tensor, nn, optim
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

__all__ = ["build_lr_scheduler", "build_optimizer"]

OPTIMIZERS = {
    "adam": optim.Adam,
    "amsgrad": partial(optim.Adam, amsgrad=True),
    "sgd": optim.SGD,
    "rmsprop": optim.RMSprop,
    "radam": partial(optim.RAdam, decoupled_weight_decay=True),
    "adamw": optim.AdamW,
}


def _options(cfg: Any) -> dict[str, Any]:
    if cfg.NAME == "sgd":
        sgd = {"dampening": cfg.SGD_DAMPNING, "nesterov": cfg.SGD_NESTEROV}
        return {"momentum": cfg.MOMENTUM, **sgd}
    if cfg.NAME == "rmsprop":
        return {"momentum": cfg.MOMENTUM, "alpha": cfg.RMSPROP_ALPHA}
    return {"betas": (cfg.ADAM_BETA1, cfg.ADAM_BETA2)}


def build_optimizer(
    model: nn.Module | Iterable, optim_cfg: Any, param_groups: Iterable | None = None
) -> Optimizer:
    """Build the optimizer that OPTIM.NAME names for a module, for parameters, or for groups.

    If `param_groups` are given, `model` is ignored.

    Raises:
        UnknownNameError: an optimizer that does not exist.
        ValueError: OPTIM.STAGED_LR, which only Dassl supports.
    """
    check_availability(optim_cfg.NAME, list(OPTIMIZERS), "optimizer")
    if optim_cfg.STAGED_LR:
        raise ValueError("OPTIM.STAGED_LR must be False without Dassl itself, got True")
    if param_groups is None:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    rates = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    return OPTIMIZERS[optim_cfg.NAME](param_groups, **rates, **_options(optim_cfg))


# Schedules

SCHEDULES = ["single_step", "multi_step", "cosine"]
WARMUPS = ["constant", "linear"]


class WarmupScheduler(LRScheduler):
    """A small rate for `warmup_epoch` epochs, then the schedule `successor`.

    kind "constant": rate `start_lr` throughout; "linear": `start_lr` in the first epoch, then
    base_lr * epoch / warmup_epoch. The state dict contains the successor's state, not the object:
    after a resume, a pickled successor would set the rate of a copy of the optimizer.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        *,
        kind: str,
        start_lr: float,
    ) -> None:
        check_availability(kind, WARMUPS, "warm-up type (OPTIM.WARMUP_TYPE)")
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        self.kind = kind
        self.start_lr = start_lr
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of the current epoch, one per parameter group."""
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        if self.kind == "constant" or self.last_epoch == 0:
            return [self.start_lr for _ in self.base_lrs]
        return [base_lr * self.last_epoch / self.warmup_epoch for base_lr in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch; after the warm-up, step the successor."""
        if self.last_epoch < self.warmup_epoch:
            super().step(epoch)
        else:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()

    def state_dict(self) -> dict:
        """Return plain numbers only, with the successor's state under `successor`."""
        own = {k: v for k, v in super().state_dict().items() if k != "successor"}
        return {**own, "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state dict of this class or of Dassl 0.6.3, which stores the successor object."""
        own = dict(state_dict)
        successor = own.pop("successor")
        if not isinstance(successor, dict):
            successor = successor.state_dict()
        self.successor.load_state_dict(successor)
        super().load_state_dict(own)


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: Any) -> LRScheduler:
    """Build the schedule that OPTIM.LR_SCHEDULER and OPTIM.WARMUP_* describe.

    Raises:
        UnknownNameError: a schedule, or a warm-up, that does not exist.
        TypeError: OPTIM.STEPSIZE is of another type than the schedule takes.
    """
    check_availability(optim_cfg.LR_SCHEDULER, SCHEDULES, "learning-rate schedule")
    schedule = _schedule(optimizer, optim_cfg)
    if optim_cfg.WARMUP_EPOCH <= 0:
        return schedule
    if not optim_cfg.WARMUP_RECOUNT:
        schedule.last_epoch = optim_cfg.WARMUP_EPOCH
    constant = optim_cfg.WARMUP_TYPE == "constant"
    return WarmupScheduler(
        optimizer,
        schedule,
        optim_cfg.WARMUP_EPOCH,
        kind=optim_cfg.WARMUP_TYPE,
        start_lr=optim_cfg.WARMUP_CONS_LR if constant else optim_cfg.WARMUP_MIN_LR,
    )


def _schedule(optimizer: Optimizer, cfg: Any) -> LRScheduler:
    steps = cfg.STEPSIZE
    if cfg.LR_SCHEDULER == "cosine":
        epochs: Any = float(cfg.MAX_EPOCH)  # Dassl's checkpoints store a float
        return CosineAnnealingLR(optimizer, epochs)
    if cfg.LR_SCHEDULER == "multi_step":
        if not isinstance(steps, (list, tuple)):
            raise TypeError(f"OPTIM.STEPSIZE must be a list for multi_step, got {steps!r}")
        return MultiStepLR(optimizer, milestones=list(steps), gamma=cfg.GAMMA)
    step = steps[-1] if isinstance(steps, (list, tuple)) else steps
    if not isinstance(step, int):
        raise TypeError(f"OPTIM.STEPSIZE must be an int for single_step, got {step!r}")
    return StepLR(optimizer, step_size=step if step > 0 else cfg.MAX_EPOCH, gamma=cfg.GAMMA)
