"""A world in which a run takes a moment: a random CLIP, and a few drawn images of four classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from causalclip.clip.backbone import build_clip, save_tiny

CLASSES = ("ant", "bee", "cat", "dog")
SIZE = 32
IMAGES = {"train": 4, "val": 1, "test": 2}
"""Images of a class in each part."""


def make_world(root: Path, *, blocks: int = 12) -> Path:
    """Write the CLIP and two data sets, of four classes and of one, below `root`; return it.

    Args:
        root: an empty folder.
        blocks: depth of both towers; 12 as in ViT-B/16, so that published depths of prompts hold.
    """
    clip = build_clip(
        vision_layers=blocks,
        vision_patch_size=16,
        transformer_layers=blocks,
        transformer_width=32,
        embed_dim=32,
        image_resolution=SIZE,
    )
    save_tiny(clip, [], root / "clip.safetensors")
    write_images(root / "images", CLASSES)
    write_images(root / "alone", CLASSES[:1])
    return root


def write_images(folder: Path, classes: tuple[str, ...]) -> None:
    """Class folders of noise around a colour of the class's own, in train/, val/ and test/."""
    random = np.random.default_rng(0)
    for part, count in IMAGES.items():
        for name in classes:
            place = folder / part / name
            place.mkdir(parents=True)
            colour = 255 * np.random.default_rng(CLASSES.index(name)).random(3)
            for number in range(count):
                pixels = (colour + random.normal(0, 40, (SIZE, SIZE, 3))).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
