"""A CDC step with M templates against a MaPLe step, and the size of both checkpoints.

    python benchmarks/cdc_step.py

Both train on the same bundled digits with `tiny`, in one process, in turn; the ratio of the medians
of CPU seconds is printed. M templates cost about M forwards, so M is the figure to compare with.
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

from causalclip import plugin
from causalclip.runs.configuration import merge_file

# isort: split
from dassl.engine import build_trainer

REPEATS = 5
ROOT = Path(__file__).parents[1]


def trainer_of(name: str, config: str, folder: Path) -> Any:
    """Return the trainer of a bundled configuration, ready to step."""
    cfg = plugin.default_cfg()
    merge_file(cfg, str(ROOT / "configs/datasets/handwritten_digits.yaml"))
    merge_file(cfg, str(ROOT / f"configs/trainers/{name}/{config}.yaml"))
    cfg.merge_from_list(
        ["DATASET.ROOT", str(folder), "OUTPUT_DIR", str(folder / name), "TRAINER.NAME", name]
        + ["DATASET.NUM_SHOTS", 16, "DATASET.SUBSAMPLE_CLASSES", "base", "SEED", 1]
    )
    with redirect_stdout(StringIO()):
        return build_trainer(cfg)


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
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    plugin.register_all()
    with tempfile.TemporaryDirectory() as folder:
        maple = trainer_of("MaPLe", "tiny", Path(folder))
        cdc = trainer_of("CDC", "tiny_m4", Path(folder))
        for trainer in (maple, cdc):
            seconds_per_step(trainer)  # warm-up
        pairs = [(seconds_per_step(cdc), seconds_per_step(maple)) for _ in range(REPEATS)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(c / m for c, m in pairs)
        print(
            f"CDC (M = {cdc.settings.N_TEMPLATES}) step {1e3 * ours:.1f} ms, "
            f"MaPLe step {1e3 * theirs:.1f} ms, ratio {ratio:.2f} (target: at most 3)"
        )
        for trainer in (maple, cdc):
            with redirect_stdout(StringIO()):
                trainer.model_zero_grad()
                trainer.save_model(0, trainer.output_dir)
            (file,) = Path(trainer.output_dir).glob("*/model.pth.tar-1")
            print(f"{trainer.cfg.TRAINER.NAME} checkpoint: {file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
