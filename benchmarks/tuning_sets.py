"""The bundled data and folders of images without their test images, for choosing recipes.

The training part of each set is halved: one half to train on, the other to choose by. The few
training shots are drawn from the first half. The validation shots (on which CDC's discount is
fitted) are drawn from the validation part as always. `python benchmarks/recipes.py` names them to
`causalclip train --import`.
"""

from __future__ import annotations

import re
from pathlib import Path

from dassl.data.datasets import Datum
from yacs.config import CfgNode

from causalclip.data.fewshot import fewshot_split
from causalclip.data.splits import Items
from causalclip.datasets.causal_shapes import CausalShapes
from causalclip.datasets.folders import ImageFolder, Parts
from causalclip.datasets.handwritten_digits import (
    PLAIN,
    ColouredDigits,
    HandwrittenDigits,
    digit_items,
)

SHOTS = 16
"""Training images a class of a folder; the remaining images are for choosing."""
VALIDATION = 4
"""Validation images a class of a folder; the rest of that part is for choosing."""


def trains(item: Datum) -> bool:
    """Return whether a bundled picture is in the half to train on, which has even numbers.

    Pictures of one scan or instance have the same number in all styles, so that no scan or
    instance is in both halves.
    """
    return int(re.findall(r"\d+", Path(item.impath).name)[0]) % 2 == 0


class _Halved:
    """A bundled set whose test part is half of its training part."""

    def _half(self, folder: Path, part: str, *, test: bool) -> Items:
        return self._part(folder, self.domains, [part], test=test)  # type: ignore[attr-defined]

    def _pooled(self, cfg: CfgNode, folder: Path) -> tuple[Items, Items, Items]:
        self.heldout_test: frozenset[str] = frozenset()
        train = [item for item in self._half(folder, "train", test=False) if trains(item)]
        test = [item for item in self._half(folder, "train", test=True) if not trains(item)]
        val = self._half(folder, "val", test=False)
        few = fewshot_split(self, train, val, cfg, folder / "split_tuning")  # type: ignore[arg-type]
        return *few, test


class TuningHandwrittenDigits(_Halved, HandwrittenDigits):
    """The plain scans."""

    def _half(self, folder: Path, part: str, *, test: bool) -> Items:
        return digit_items(folder, PLAIN, part, number=0)


class TuningColouredDigits(_Halved, ColouredDigits):
    """The scans in all four looks."""


class TuningCausalShapes(_Halved, CausalShapes):
    """The shapes, with the test's share of confounded backgrounds in the half that chooses."""


class TuningImageFolder(ImageFolder):
    """A folder of images without its test part."""

    def read(self, settings: CfgNode) -> tuple[Path, Parts]:
        """Read as `ImageFolder.read`, the test part put together from the others."""
        folder, (train, val, _) = super().read(settings)
        first, rest = _cut(train, SHOTS)
        validation, others = _cut(val, VALIDATION)
        return folder, (first, validation, [*rest, *others])


def _cut(items: Items, count: int) -> tuple[list[Datum], list[Datum]]:
    """Return the first `count` items of every class, and the others."""
    seen: dict[int, int] = {}
    parts: tuple[list[Datum], list[Datum]] = [], []
    for item in items:
        seen[item.label] = seen.get(item.label, 0) + 1
        parts[seen[item.label] > count].append(item)
    return parts


DATASETS = (TuningHandwrittenDigits, TuningColouredDigits, TuningCausalShapes, TuningImageFolder)
