"""build_optimizer: the OPTIM node of a configuration as a torch optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

from dassl.utils.registry import check_availability
from torch import nn, optim
from torch.optim import Optimizer

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
    rates = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    return OPTIMIZERS[optim_cfg.NAME](param_groups, **rates, **_options(optim_cfg))


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
