"""One run in several processes, as torchrun starts them: what they share, and who writes.

Every process holds the whole model and makes the same draws; images are divided. What learns is a
few prompts beside a frozen CLIP, so their gradients travel in one tensor after the backward pass,
and no wrapper stands around the module (DistributedDataParallel weighs all processes alike, which
is not the mean over a last batch that they share unevenly).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader

from causalclip.engine.loading import Epochs

T = TypeVar("T")


@contextmanager
def processes(*, seed: int, gpu: bool) -> Iterator[None]:
    """Join the other processes of this run, if torchrun has started some; gloo, nccl on GPUs.

    Only the first one's prints are shown.

    Args:
        seed: the run's; all processes draw from it.
        gpu: whether the run may use them; each process has one of its own.

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
        torch.cuda.set_device(own_gpu())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    with nullcontext() if is_writer() else _unseen():
        yield
    # After an error there is nobody to take leave of: the others may be gone.
    distributed.destroy_process_group()


@contextmanager
def _unseen() -> Iterator[None]:
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def own_gpu() -> int:
    """The number of this process's GPU.

    Raises:
        ValueError: there is none left for it.
    """
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise ValueError(
            f"each process needs a GPU of its own: process {number + 1} of this machine has none, "
            f"there are {count}; give torchrun --nproc-per-node {count}, or USE_CUDA False"
        )
    return number


def rank() -> int:
    """Which of the processes this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_writer() -> bool:
    """Whether this process writes the run's files and shows its progress."""
    return rank() == 0


def wait() -> None:
    """Wait for all others."""
    in_order([None])  # each needs what all others have


# Images


def own(batches: Sequence[T]) -> Sequence[T]:
    """The batches of an evaluation that fall to this process; `in_order` is the way back."""
    return batches[rank() :: world_size()]


def own_batches(loader: DataLoader) -> DataLoader:
    """A test loader of the same batches, as far as they fall to this process."""
    if world_size() == 1:
        return loader
    assert loader.batch_sampler is not None, "Dassl's loaders make batches"
    return DataLoader(
        loader.dataset,
        batch_sampler=own(list(loader.batch_sampler)),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )


def divided(loader: DataLoader | Epochs) -> DataLoader | Epochs:
    """A training loader of this process's part of every batch; of one process alone, as it is.

    Raises:
        ValueError: DATALOADER.DRAWS dassl, whose draws depend on what else a process loads, or a
            batch size that the number of processes does not divide.
    """
    count = world_size()
    if count == 1:
        return loader
    if not isinstance(loader, Epochs):
        raise ValueError(
            "several processes need DATALOADER.DRAWS item, whose draws depend on the image alone; "
            "got dassl"
        )
    if loader.batch_size % count:
        raise ValueError(
            f"DATALOADER.TRAIN_X.BATCH_SIZE must be a multiple of the {count} processes, "
            f"got {loader.batch_size}"
        )
    loader.part = own_part
    return loader


def own_part(batch: list[T]) -> list[T]:
    """This process's images of a batch; of a last, smaller one some processes have one less.

    Raises:
        ValueError: fewer images than processes.
    """
    count, number = world_size(), rank()
    if len(batch) < count:
        raise ValueError(f"a batch of {len(batch)} images cannot be divided by {count} processes")
    return batch[number * len(batch) // count : (number + 1) * len(batch) // count]


# What they tell each other


def average(module: nn.Module, n_images: int, *numbers: Tensor) -> list[Tensor]:
    """Make the gradients of means over each process's images those of the mean over all images.

        g = sum_r n_r g_r / sum_r n_r

    So a term that is no mean over images, but the same in every process, keeps its weight.

    Args:
        module: whose gradients are replaced.
        n_images: in this process's part of the batch.
        numbers: means over these images as well, tensors (...) of one element each.

    Returns:
        The numbers as means over all images.
    """
    if world_size() == 1:
        return list(numbers)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    means = mean_over_all(n_images, *gradients, *(number.detach().float() for number in numbers))
    for gradient, mean in zip(gradients, means, strict=False):
        gradient.copy_(mean)
    return means[len(gradients) :]


def mean_over_all(n_images: int, *parts: Tensor) -> list[Tensor]:
    """Means over the images of all processes, from those over each process's.

    Args:
        n_images: in this process's part of the batch.
        parts: tensors of any shapes, the same in every process.
    """
    if world_size() == 1:
        return list(parts)
    total = torch.cat([*(part.flatten() for part in parts), parts[0].new_ones(1)]) * n_images
    distributed.all_reduce(total)
    means = (total / total[-1])[:-1].split([part.numel() for part in parts])
    return [mean.view_as(part) for mean, part in zip(means, parts, strict=True)]


def in_order(mine: Sequence[T]) -> list[T]:
    """What all processes have made of their `own` batches, in the order of the batches."""
    if world_size() == 1:
        return list(mine)
    everyones: list[Any] = [None] * world_size()
    distributed.all_gather_object(everyones, list(mine))
    return _interleaved(everyones)


def to_writer(mine: Sequence[T]) -> list[T] | None:
    """As `in_order`, for the writer alone: the others get None."""
    if world_size() == 1:
        return list(mine)
    everyones: list[Any] | None = [None] * world_size() if is_writer() else None
    distributed.gather_object(list(mine), everyones)
    return None if everyones is None else _interleaved(everyones)


def _interleaved(everyones: Sequence[Sequence[T]]) -> list[T]:
    count = sum(map(len, everyones))
    return [everyones[i % len(everyones)][i // len(everyones)] for i in range(count)]


def from_writer(value: T) -> T:
    """What the writer has, for all of them."""
    if world_size() == 1:
        return value
    told = [value]
    distributed.broadcast_object_list(told)
    return told[0]
