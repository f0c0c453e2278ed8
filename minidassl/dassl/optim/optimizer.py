"""build_optimizer: the OPTIM node of a configuration as a torch optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from dassl.utils.names import check_availability
from torch import nn, optim
from torch.optim import Optimizer


def _betas(cfg: Any) -> dict:
    return {"betas": (cfg.ADAM_BETA1, cfg.ADAM_BETA2)}


def _momentum(cfg: Any) -> dict:
    return {
        "momentum": cfg.MOMENTUM,
        "dampening": cfg.SGD_DAMPNING,
        "nesterov": cfg.SGD_NESTEROV,
    }


OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], Callable[[Any], dict]]] = {
    "adam": (optim.Adam, _betas),
    "amsgrad": (optim.Adam, lambda cfg: {**_betas(cfg), "amsgrad": True}),
    "sgd": (optim.SGD, _momentum),
    "rmsprop": (
        optim.RMSprop,
        lambda cfg: {"momentum": cfg.MOMENTUM, "alpha": cfg.RMSPROP_ALPHA},
    ),
    "radam": (optim.RAdam, lambda cfg: {**_betas(cfg), "decoupled_weight_decay": True}),
    "adamw": (optim.AdamW, _betas),
}


def build_optimizer(
    model: nn.Module | Iterable, optim_cfg: Any, param_groups: Iterable | None = None
) -> Optimizer:
    """Build the optimizer that OPTIM.NAME names for a module, for parameters, or for groups.

    With OPTIM.STAGED_LR the layers outside OPTIM.NEW_LAYERS learn at LR * BASE_LR_MULT; given
    `param_groups` win over `model` and over staged rates.

    Raises:
        UnknownNameError: an optimizer, or a layer of OPTIM.NEW_LAYERS, that does not exist.
        TypeError: staged rates for something that is no module.
    """
    check_availability(optim_cfg.NAME, list(OPTIMIZERS), "optimizer")
    if param_groups is None:
        param_groups = _parameters(model, optim_cfg)
    elif optim_cfg.STAGED_LR:
        warnings.warn("OPTIM.STAGED_LR is ignored where param_groups are given", stacklevel=2)
    kind, options = OPTIMIZERS[optim_cfg.NAME]
    return kind(
        param_groups,
        lr=optim_cfg.LR,
        weight_decay=optim_cfg.WEIGHT_DECAY,
        **options(optim_cfg),
    )


def _parameters(model: nn.Module | Iterable, cfg: Any) -> Iterable:
    if cfg.STAGED_LR:
        return _staged(model, cfg)
    return model.parameters() if isinstance(model, nn.Module) else model


def _staged(model: nn.Module | Iterable, cfg: Any) -> list[dict]:
    """Split a module's direct children into the base layers and the new ones."""
    if not isinstance(model, nn.Module):
        raise TypeError("OPTIM.STAGED_LR needs an nn.Module, got " + type(model).__name__)
    module: nn.Module = model.module if isinstance(model, nn.DataParallel) else model
    new_layers = [cfg.NEW_LAYERS] if isinstance(cfg.NEW_LAYERS, str) else list(cfg.NEW_LAYERS)
    children = dict(module.named_children())
    for name in new_layers:
        check_availability(name, list(children), "layer (OPTIM.NEW_LAYERS)")
    base, new = [], []
    for name, child in children.items():
        (new if name in new_layers else base).extend(child.parameters())
    return [{"params": base, "lr": cfg.LR * cfg.BASE_LR_MULT}, {"params": new}]
