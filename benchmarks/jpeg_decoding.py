"""Images a second in one loading process: our data path against Dassl's, pixel for pixel the same.

    python benchmarks/jpeg_decoding.py FOLDER [--images 400] [--size 224]

FOLDER holds JPEG files, at any depth. The plain path is Dassl's: look at the file, open, convert to
RGB, resize, crop, tensor, normalise; ours is ImageFolder's items read by the toolkit's
DatasetWrapper. Expected ratio: 1.0 or above.
"""

import argparse
import os
from pathlib import Path

import torch
from dassl.config import get_cfg_default
from dassl.data import DatasetWrapper
from dassl.data.transforms import build_transform
from PIL import Image
from timing import ratio
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from causalclip.clip.backbone import CLIP_MEAN, CLIP_STD
from causalclip.data.listing import listed


def plain(paths: list[str], transform) -> list[torch.Tensor]:
    """Read images as Dassl's code reads them."""
    images = []
    for path in paths:
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        images.append(transform(Image.open(path).convert("RGB")))
    return images


def ours(paths: list[str], cfg) -> list[torch.Tensor]:
    """Read images through our items and the toolkit's wrapper."""
    items = [listed(path, 0) for path in paths]
    wrapper = DatasetWrapper(cfg, items, transform=build_transform(cfg, is_train=False))
    return [wrapper[index]["img"] for index in range(len(items))]


def main() -> None:
    """Check that both give the same pixels, and time them in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg = get_cfg_default()
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (args.size, args.size), "bicubic"
    cfg.INPUT.TRANSFORMS = ("normalize",)
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = list(CLIP_MEAN), list(CLIP_STD)
    steps = [
        transforms.Resize(args.size, interpolation=InterpolationMode.BICUBIC),
        transforms.CenterCrop(args.size),
        transforms.ToTensor(),
        transforms.Normalize(CLIP_MEAN, CLIP_STD),
    ]
    transform = transforms.Compose(steps)
    paths = [str(path) for path in sorted(args.folder.rglob("*.jpg"))][: args.images]
    if not all(map(torch.equal, plain(paths, transform), ours(paths, cfg))):
        raise AssertionError("the two paths must give the same pixels")
    found = ratio(lambda: plain(paths, transform), lambda: ours(paths, cfg), repeats=5)
    per_second = len(paths) / found.plain, len(paths) / found.fast
    print(f"plain {per_second[0]:.0f} images/s, ours {per_second[1]:.0f}: ", end="")
    print(f"{found.plain / found.fast:.2f}x on {len(paths)} images")


if __name__ == "__main__":
    main()
