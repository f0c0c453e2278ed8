"""Compare a CDC step with M templates with a MaPLe step, and the size of both checkpoints.

    python benchmarks/cdc_step.py [--templates 1 2 4]

All train alternately in one process on the bundled digits with `tiny`. Printed: medians of CPU
seconds and the median ratio. M templates cost about M forward passes, so expect a ratio near M.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from shapes import digits_trainer

REPEATS = 5
BASE = {"DATASET.NUM_SHOTS": 16, "DATASET.SUBSAMPLE_CLASSES": "base"}


def seconds_per_step(trainer: Any) -> float:
    """Return the median CPU time over one epoch of forward, backward and update."""
    trainer.set_model_mode("train")
    trainer.epoch, trainer.num_batches = 0, len(trainer.train_loader_x) + 1
    times = []
    for index, batch in enumerate(trainer.train_loader_x):
        trainer.batch_idx = index
        start = time.process_time()
        trainer.forward_backward(batch)
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Print medians, their ratio and the checkpoints' sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--templates", nargs="+", type=int, default=[4], metavar="M")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        maple = digits_trainer("MaPLe", Path(folder), BASE)
        sizes = [{**BASE, "TRAINER.CDC.N_TEMPLATES": m} for m in args.templates]
        cdcs = [
            digits_trainer("CDC", Path(folder, str(k)), pairs, "tiny_m4")
            for k, pairs in enumerate(sizes)
        ]
        trainers = [maple, *cdcs]
        for trainer in trainers:
            seconds_per_step(trainer)  # warm-up
        rounds = [[seconds_per_step(trainer) for trainer in trainers] for _ in range(REPEATS)]
        theirs = statistics.median(times[0] for times in rounds)
        for column, cdc in enumerate(cdcs, start=1):
            ours = statistics.median(times[column] for times in rounds)
            ratio = statistics.median(times[column] / times[0] for times in rounds)
            print(
                f"CDC (M = {cdc.settings.N_TEMPLATES}) step {1e3 * ours:.1f} ms, "
                f"MaPLe step {1e3 * theirs:.1f} ms, ratio {ratio:.2f}"
            )
        for trainer in trainers:
            with redirect_stdout(StringIO()):
                trainer.model_zero_grad()
                trainer.save_model(0, trainer.output_dir)
            (file,) = Path(trainer.output_dir).glob("*/model.pth.tar-1")
            print(f"{trainer.cfg.TRAINER.NAME} checkpoint: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
