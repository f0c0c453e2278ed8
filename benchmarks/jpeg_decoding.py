"""Compare our loading of JPEGs with Dassl's: single images, and an epoch of training.

    python benchmarks/jpeg_decoding.py FOLDER [--images 400] [--size 224] [--workers 8 2 0]

FOLDER holds JPEG files, at any depth.

First, images per second in one process; both ways must give the same pixels. The plain path is
Dassl's (check that the file exists, open, convert to RGB, resize, crop, tensor, normalise). Ours
reads ImageFolder's items with the toolkit's DatasetWrapper. Expected ratio: 1.0 or above.

Then seconds per epoch of 160 images (random crop and flip, batch 32), the mean of ten epochs with
the start of the workers: the toolkit's loader, and ours (DATALOADER.DRAWS item) without and with a
store of decoded images. Expected ratio with 8 workers: 2 or above.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import torch

from causalclip import plugin

# isort: split
from dassl.config import get_cfg_default
from dassl.data import DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from PIL import Image
from timing import ratio
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from causalclip.clip.backbone import CLIP_MEAN, CLIP_STD
from causalclip.data.listing import listed
from causalclip.engine.loading import training_loader

EPOCHS = 10
FEW = 160  # images of an epoch: ten classes with 16 shots
WAYS = {
    "the toolkit's loader": {"DRAWS": "dassl"},
    "ours": {"DRAWS": "item", "DECODED_MB": 0},
    "ours, decoded images kept": {"DRAWS": "item", "DECODED_MB": 512},
}


def plain(paths: list[str], transform: Callable) -> list[torch.Tensor]:
    """Read images as Dassl's code reads them."""
    images = []
    for path in paths:
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        images.append(transform(Image.open(path).convert("RGB")))
    return images


def ours(paths: list[str], cfg: CfgNode) -> list[torch.Tensor]:
    """Read images through our items and the toolkit's wrapper."""
    items = [listed(path, 0) for path in paths]
    with redirect_stdout(StringIO()):
        wrapper = DatasetWrapper(cfg, items, transform=build_transform(cfg, is_train=False))
    return [wrapper[index]["img"] for index in range(len(items))]


def configuration(size: int) -> CfgNode:
    """Return Dassl's configuration for images of this size."""
    cfg = plugin.extend_cfg(get_cfg_default())
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (size, size), "bicubic"
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = list(CLIP_MEAN), list(CLIP_STD)
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.OPTIM.MAX_EPOCH = EPOCHS
    return cfg


def an_image_at_a_time(paths: list[str], cfg: CfgNode, size: int) -> None:
    """Check that both ways give the same pixels, and time them in turn."""
    steps = [
        transforms.Resize(size, interpolation=InterpolationMode.BICUBIC),
        transforms.CenterCrop(size),
        transforms.ToTensor(),
        transforms.Normalize(CLIP_MEAN, CLIP_STD),
    ]
    transform = transforms.Compose(steps)
    if not all(map(torch.equal, plain(paths, transform), ours(paths, cfg))):
        raise AssertionError("the two paths must give the same pixels")
    found = ratio(lambda: plain(paths, transform), lambda: ours(paths, cfg), repeats=5)
    per_second = len(paths) / found.plain, len(paths) / found.fast
    print(f"plain {per_second[0]:.0f} images/s, ours {per_second[1]:.0f}: ", end="")
    print(f"{found.plain / found.fast:.2f}x on {len(paths)} images")


def seconds_an_epoch(
    paths: list[str], cfg: CfgNode, way: dict, workers: int
) -> tuple[float, float]:
    """Return elapsed and CPU seconds (of all processes) per epoch, means over a training."""
    cfg = cfg.clone()
    cfg.DATALOADER.update(way, NUM_WORKERS=workers)
    with redirect_stdout(StringIO()):
        transform = build_transform(cfg, is_train=True)
    items = [listed(path, 0) for path in paths]
    loader = build_data_loader(cfg, "RandomSampler", items, 32, tfm=transform, is_train=True)
    loader = training_loader(loader, cfg)
    start, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(EPOCHS):
        for _ in loader:
            pass
    return (time.perf_counter() - start) / EPOCHS, (cpu_seconds() - cpu) / EPOCHS


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its workers that have ended."""
    return sum(os.times()[:4])


def epochs(paths: list[str], cfg: CfgNode, workers: int, repeats: int) -> None:
    """Time the ways alternately; print medians and the ratio of the first way to each."""
    runs = [
        [seconds_an_epoch(paths, cfg, way, workers) for way in WAYS.values()]
        for _ in range(repeats)
    ]
    for column, name in enumerate(WAYS):
        taken, cpu = (median(run[column][clock] for run in runs) for clock in range(2))
        times, cpu_times = (
            median(run[0][clock] / run[column][clock] for run in runs) for clock in range(2)
        )
        print(
            f"{workers} workers, {name}: {taken:.2f} s an epoch, {times:.1f}x; "
            f"{cpu:.2f} CPU seconds, {cpu_times:.1f}x"
        )


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 2, 0])
    parser.add_argument("--repeats", type=int, default=3, help="of the trainings")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = configuration(args.size)
    every = sorted(map(str, args.folder.rglob("*.jpg")))
    an_image_at_a_time(every[: args.images], cfg, args.size)
    for workers in args.workers:
        epochs(every[:: max(1, len(every) // FEW)][:FEW], cfg, workers, args.repeats)


if __name__ == "__main__":
    main()
