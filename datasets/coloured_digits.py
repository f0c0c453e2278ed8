"""ColouredDigits: the real scans of HandwrittenDigits in four looks, every stroke in some colour.

The colour is drawn independently of the digit, so a model that has learned the two together is led
astray by it (the idea of Colored MNIST, Arjovsky et al., 2019, arXiv 1907.02893).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from causalclip.data.bundled import BundledDataset, build_once
from causalclip.data.catalogue import facts_of
from causalclip.data.rendering import DIGIT_COLOURS, LOOKS, draw_look, enlarge
from causalclip.data.splits import Items
from causalclip.datasets.handwritten_digits import digit_items, write_looks

EDITION = 1
FACTS = facts_of("ColouredDigits")


def draw_coloured(counts: np.ndarray, look: str, index: int) -> np.ndarray:
    """Scan number `index`, counts (8, 8) in 0..16, in a look and some colour: uint8 (32, 32, 3)."""
    rng = np.random.default_rng((EDITION, LOOKS.index(look), index))
    colour = DIGIT_COLOURS[rng.integers(len(DIGIT_COLOURS))]
    return draw_look(enlarge(counts), look, rng, colour=colour)


def write_coloured(folder: Path) -> None:
    """Draw all scans in all four looks below `folder`."""
    write_looks(folder, FACTS.looks, draw_coloured)


class ColouredDigits(BundledDataset):
    """The scans as ink, chalk, neon and on noisy paper, one colour of eight each, 32 x 32."""

    dataset_dir = FACTS.folder
    domains = FACTS.domains

    def __init__(self, cfg: CfgNode) -> None:
        folder = build_once(cfg.DATASET.ROOT, self.dataset_dir, write_coloured, edition=EDITION)
        self._setup(cfg, folder)

    def _items(self, folder: Path, domain: str, part: str, *, number: int, test: bool) -> Items:
        return digit_items(folder, domain, part, number=number)


DATASETS = (ColouredDigits,)
