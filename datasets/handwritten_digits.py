"""HandwrittenDigits and ColouredDigits: the 1,797 scans of scikit-learn's digits in several looks.

Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998, UCI 80), 8 x 8 counts. In
ColouredDigits the colour of a stroke is drawn independently of the digit, so colour misleads a
model that has learned to rely on it (the idea of Colored MNIST, Arjovsky et al., 2019,
arXiv 1907.02893).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm
from yacs.config import CfgNode

from causalclip.data.bundled import BundledDataset, assign_parts, build_once
from causalclip.data.catalogue import facts_of
from causalclip.data.listing import ListedDatum, image_names
from causalclip.data.rendering import DIGIT_COLOURS, DIGIT_NAMES, LOOKS, draw_look, enlarge
from causalclip.data.splits import Items, read_split

EDITION = 1
PLAIN = "scan"
FACTS = facts_of("HandwrittenDigits")
COLOURED = facts_of("ColouredDigits")
SPLIT_FILE = FACTS.split_file


def draw_scan(counts: np.ndarray, look: str, index: int, *, coloured: bool = False) -> np.ndarray:
    """Draw scan `index`, counts (8, 8) in 0..16, in one look: uint8 (SIZE, SIZE, 3).

    With `coloured` its strokes have one of the `DIGIT_COLOURS`.
    """
    rng = np.random.default_rng((EDITION, LOOKS.index(look), index))
    colour = DIGIT_COLOURS[rng.integers(len(DIGIT_COLOURS))] if coloured else None
    return draw_look(enlarge(counts), look, rng, colour=colour)


def write_looks(
    folder: Path, looks: Sequence[str], *, coloured: bool = False
) -> list[tuple[str, str, int]]:
    """Draw all scans as `folder/LOOK/NAME/PART_INDEX.png`; return part, NAME/... and label.

    Raises:
        FileExistsError: if a look's folder exists.
    """
    from sklearn.datasets import load_digits  # large, and only the first use needs it

    for look in looks:
        for name in DIGIT_NAMES:
            (folder / look / name).mkdir(parents=True)
    data: Any = load_digits()
    drawn = []
    rows = zip(data.images, data.target, assign_parts(data.target), strict=True)
    for index, (counts, label, part) in enumerate(
        tqdm(rows, desc="drawing digits", total=len(data.target), unit="scan", disable=None)
    ):
        file = f"{DIGIT_NAMES[label]}/{part}_{index:04d}.png"
        for look in looks:
            picture = Image.fromarray(draw_scan(counts, look, index, coloured=coloured))
            picture.save(folder / look / file, compress_level=1)
        drawn.append((part, file, int(label)))
    return drawn


def digit_items(folder: Path, look: str, part: str, *, number: int) -> Items:
    """Return the pictures of a part in a look that `write_looks` has drawn, as domain `number`.

    Raises:
        FileNotFoundError: if a folder of the look is missing.
    """
    return [
        ListedDatum(str(folder / look / name), file, label, domain=number, classname=name)
        for label, name in enumerate(DIGIT_NAMES)
        for file in image_names(folder / look / name)
        if file.startswith(f"{part}_")
    ]


def write_digits(folder: Path) -> None:
    """Draw all scans in all looks below `folder`, with CoOp's split file."""
    split: dict[str, list] = {"train": [], "val": [], "test": []}
    for part, file, label in write_looks(folder, FACTS.looks):
        row = [f"{PLAIN}/{file}", label, DIGIT_NAMES[label]]
        split[part if part in split else "test"].append(row)
    (folder / SPLIT_FILE).write_text(json.dumps(split), encoding="utf-8")


def write_coloured(folder: Path) -> None:
    """Draw all scans in all four looks below `folder`, in colours."""
    write_looks(folder, COLOURED.looks, coloured=True)


class HandwrittenDigits(BundledDataset):
    """Real 8 x 8 scans as 32 x 32 pictures, ten classes, 50 / 10 / 40 % train, val and test.

    With source and target domains: the same scans as ink, chalk, neon and on noisy paper.
    """

    dataset_dir = FACTS.folder
    domains = FACTS.domains

    def __init__(self, cfg: CfgNode) -> None:
        folder = build_once(cfg.DATASET.ROOT, self.dataset_dir, write_digits, edition=EDITION)
        self._setup(cfg, folder)

    def _whole(self, folder: Path) -> tuple[Items, Items, Items]:
        """Return the plain scans, split by the split file as in CoOp's data sets."""
        return read_split(folder / SPLIT_FILE, folder)

    def _items(self, folder: Path, domain: str, part: str, *, number: int, test: bool) -> Items:
        return digit_items(folder, domain, part, number=number)


class ColouredDigits(BundledDataset):
    """The scans as ink, chalk, neon and on noisy paper, each in one of eight colours, 32 x 32."""

    dataset_dir = COLOURED.folder
    domains = COLOURED.domains

    def __init__(self, cfg: CfgNode) -> None:
        folder = build_once(cfg.DATASET.ROOT, self.dataset_dir, write_coloured, edition=EDITION)
        self._setup(cfg, folder)

    _items = HandwrittenDigits._items


DATASETS = (HandwrittenDigits, ColouredDigits)
