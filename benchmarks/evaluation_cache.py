"""Time the image part of an evaluation: of the first method on a test set, and of a later one.

    python benchmarks/evaluation_cache.py

CoOp and ZeroshotCLIP with `tiny` on the bundled digits. The first encodes the test images,
the second reads their features. Printed: median seconds to get the features in both cases, and
their ratio. Expected: 20 or above.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import torch
from shapes import digits_trainer

from causalclip.engine.evaluation import split_batches

REPEATS = 5


def image_seconds(trainer: Any) -> float:
    """Return the seconds until all batches of images or features are loaded."""
    start = time.perf_counter()
    for _ in split_batches(trainer, trainer.test_loader):
        pass
    return time.perf_counter() - start


def main() -> None:
    """Print both medians and the ratio."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        os.environ["CAUSALCLIP_CACHE"] = str(cache)
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            one_shot = {"DATASET.NUM_SHOTS": 1}
            first = digits_trainer("CoOp", Path(name), one_shot)
            second = digits_trainer("ZeroshotCLIP", Path(name), one_shot)
            pairs = []
            for _ in range(REPEATS):
                shutil.rmtree(cache, ignore_errors=True)
                pairs.append((image_seconds(first), image_seconds(second)))
        encoded, read = (median(column) for column in zip(*pairs, strict=True))
        ratio = median(one / other for one, other in pairs)
        count = len(first.dm.dataset.test)
        print(f"{count} images encoded {encoded:.2f} s, read {1e3 * read:.1f} ms: {ratio:.0f}x")


if __name__ == "__main__":
    main()
