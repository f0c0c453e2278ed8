"""Time CLIP-ICM with and without cached features, and count the encoded images.

    python benchmarks/feature_cache.py

Three runs of one fit on the bundled digits with `tiny`: the first encodes, the second and third
try other strengths and dimensions on the cached features. Printed: the number of encoded images and
the seconds of each run as a share of the first's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from shapes import digits_trainer
from torch import Tensor

DATA = {
    "DATASET.NUM_SHOTS": 32,
    "DATASET.SOURCE_DOMAINS": ["ink", "chalk", "neon"],
    "DATASET.TARGET_DOMAINS": ["noisy_paper"],
}
SWEEPS = [
    {},
    {"TRAINER.CLIP_ICM.GRID_EPS": [0.02, 0.2, 2.0]},
    {"TRAINER.CLIP_ICM.GRID_DIMS": [0.1, 0.2, 0.4], "TRAINER.CLIP_ICM.C": 1.0},
]


def fitted(folder: Path, number: int, options: dict[str, Any]) -> tuple[float, int, int]:
    """Return the seconds of a fit and its test, and the numbers of encoded and of used images."""
    place = {"OUTPUT_DIR": str(folder / f"run{number}")}
    trainer = digits_trainer("CLIP_ICM", folder, {**DATA, **place, **options})
    encoded, encode = [0], trainer.encoder.encode

    def counting(images: Tensor) -> Tensor:
        encoded[0] += len(images)
        return encode(images)

    object.__setattr__(trainer.encoder, "encode", counting)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    dataset = trainer.dm.dataset
    return seconds, encoded[0], 2 * len(dataset.train_x) + len(dataset.test)


def main() -> None:
    """Print the three runs."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["CAUSALCLIP_CACHE"] = str(Path(name) / "cache")
        first = None
        for number, options in enumerate(SWEEPS):
            with redirect_stdout(StringIO()):
                seconds, encoded, needed = fitted(Path(name), number, options)
            first = first or seconds
            print(
                f"run {number + 1}: {encoded:5d} images encoded ({needed} in use, twins counted), "
                f"{seconds:.1f} s, {seconds / first:.2f} of the first"
            )


if __name__ == "__main__":
    main()
