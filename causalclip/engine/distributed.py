"""Training in several processes that torchrun starts; only `PromptTrainer` supports it.

Every process has the whole model and makes the same random draws; the images of a batch are
divided. After the backward pass, all gradients are averaged in one tensor, weighted by the number
of images of each process. (DistributedDataParallel gives all processes the same weight, which is
wrong if a batch is divided unevenly.) The first process evaluates and writes; the others wait.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from causalclip.engine.loading import Epochs

ValueT = TypeVar("ValueT")
TIMEOUT = datetime.timedelta(hours=12)  # the other processes wait while the first one evaluates


@contextmanager
def processes(*, seed: int, gpu: bool) -> Iterator[None]:
    """Join the other processes that torchrun has started, if any: nccl on GPUs, else gloo.

    Only the first process prints. All of them draw from `seed`; with `gpu` each has its own GPU.

    Raises:
        ValueError: no seed to share, or more processes on this machine than it has GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if seed < 0:
        raise ValueError(
            f"several processes must make the same draws: SEED must be 0 or more, got {seed}"
        )
    if gpu:
        number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if number >= count:
            raise ValueError(
                f"each process needs a GPU of its own, there are {count}: give torchrun "
                f"--nproc-per-node {count}, or USE_CUDA False"
            )
        torch.cuda.set_device(number)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=TIMEOUT)
    if is_main():
        yield
    else:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
    distributed.destroy_process_group()  # not after an error: other processes may have ended


def rank() -> int:
    """Return the rank of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main() -> bool:
    """Return whether this process evaluates and writes."""
    return rank() == 0


def from_main(value: ValueT) -> ValueT:
    """Return the first process's value in all processes, which wait for it."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def from_all(value: ValueT) -> list[ValueT]:
    """Return the values of all processes in each process; they wait for each other."""
    if world_size() == 1:
        return [value]
    values = [value] * world_size()
    distributed.all_gather_object(values, value)
    return values


def divided(loader: DataLoader | Epochs) -> DataLoader | Epochs:
    """Make a training loader yield only this process's part of every batch.

    Raises:
        ValueError: DATALOADER.DRAWS dassl, whose draws depend on what else a process loads, or a
            batch size that is not a multiple of the number of processes.
    """
    count, number = world_size(), rank()
    if count == 1:
        return loader
    if not isinstance(loader, Epochs):
        raise ValueError("several processes need DATALOADER.DRAWS item, got dassl")
    if loader.batch_size % count:
        raise ValueError(
            f"DATALOADER.TRAIN_X.BATCH_SIZE must be a multiple of the {count} processes, "
            f"got {loader.batch_size}"
        )

    def part(batch: list[ValueT]) -> list[ValueT]:
        if len(batch) < count:
            raise ValueError(
                f"a batch of {len(batch)} images cannot be divided by {count} processes"
            )
        return batch[number * len(batch) // count : (number + 1) * len(batch) // count]

    loader.part = part
    return loader


def average(module: nn.Module, n_images: int, *numbers: Tensor) -> list[Tensor]:
    """Average the gradients in place over the images of all processes.

        g = sum_r n_r g_r / sum_r n_r

    `n_images` is n_r, the number of images of this process, and g_r the gradient of the mean loss
    over them. Return `numbers`, tensors (...) of one element, averaged in the same way.
    """
    if world_size() == 1:
        return list(numbers)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    parts = [*gradients, *(number.detach().float() for number in numbers)]
    total = torch.cat([*(part.flatten() for part in parts), parts[0].new_ones(1)]) * n_images
    distributed.all_reduce(total)
    means = (total / total[-1])[:-1].split([part.numel() for part in parts])
    for gradient, mean in zip(gradients, means, strict=False):
        gradient.copy_(mean.view_as(gradient))
    return [
        mean.view_as(number) for number, mean in zip(numbers, means[len(gradients) :], strict=True)
    ]
