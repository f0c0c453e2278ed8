"""Makes the files of fits/; run in a checkout of version 87e1c13 that is installed there.

    python <here>/make_fits.py

fits CLIP_ICM, LinearProbe and TipAdapter on the bundled `tiny` and digits.
"""

# pyright: reportMissingImports=false
# (87e1c13's modules, not today's)

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from causalclip import plugin

FITS = Path(__file__).with_name("fits").resolve()
DOMAINS = ["DATASET.SOURCE_DOMAINS", ["ink", "chalk"], "DATASET.TARGET_DOMAINS", ["neon"]]
COMMON = ["DATASET.NAME", "HandwrittenDigits", "DATASET.SUBSAMPLE_CLASSES", "base", *DOMAINS]
COMMON += ["SEED", 1, "USE_CUDA", False]
ICM = "TRAINER.CLIP_ICM."
OPTIONS = {
    "CLIP_ICM": ["DATASET.NUM_SHOTS", 8, f"{ICM}GRID_ESTIMATORS", ["generalized"]]
    + [f"{ICM}GRID_EPS", [0.1], f"{ICM}GRID_DIMS", [0.0625, 0.125]],
    "LinearProbe": ["DATASET.NUM_SHOTS", 8, "TRAINER.LINEARPROBE.STEPS", 2],
    "TipAdapter": ["DATASET.NUM_SHOTS", 2, "TRAINER.TIPADAPTER.AUGMENT_EPOCHS", 2],
}
ROWS = 50  # of the predictions


def main() -> None:
    """Write a checkpoint and what the old code predicted and said, for each method."""
    plugin.register_all()
    from dassl.config import get_cfg_default
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for method, options in OPTIONS.items():
            cfg = plugin.extend_cfg(get_cfg_default())
            cfg.merge_from_file(f"configs/trainers/{method}/tiny.yaml")
            cfg.merge_from_list(["DATASET.ROOT", str(work), "OUTPUT_DIR", str(work / method)])
            cfg.merge_from_list(["TRAINER.NAME", method, *COMMON, *options])
            set_random_seed(1)
            build_trainer(cfg).train()
            keep(work / method, FITS / method)


def keep(run: Path, folder: Path) -> None:
    """Copy what the test needs of a run's output folder."""
    shutil.copytree(run / "fit", folder / "fit", dirs_exist_ok=True)
    for projection in run.glob("projection.safetensors"):
        shutil.copy(projection, folder)
    record = json.loads((run / "results.json").read_text())
    said = {key: record[key] for key in ("metrics", "variants", "details")}
    (folder / "said.json").write_text(json.dumps(said, indent=1))
    arrays = np.load(run / "predictions.npz")
    kept = {name: arrays[name][:ROWS] for name in arrays.files if name != "path"}
    np.savez_compressed(folder / "predictions.npz", **kept)


if __name__ == "__main__":
    main()
